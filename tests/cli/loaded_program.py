"""Runs ``lock-worker`` many times and loads it once: to load it costs far more than what most commands do.

One process for each of pytest's loads the program, and forks for each run. A run has a process, an environment, a
directory and an output of its own, goes through ``main``, and ends as any Python program does.
"""

from __future__ import annotations

import gc
import json
import os
import pkgutil
import selectors
import signal
import socket
import subprocess
import sys
import sysconfig
import time
from contextlib import suppress
from functools import cache
from importlib import import_module
from pathlib import Path
from tempfile import TemporaryFile
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

PROGRAM = Path(sysconfig.get_path("scripts")) / "lock-worker"
_REQUEST_BYTES = 200_000
#: Variables that Python reads when it starts, so that a forked process cannot obey them.
_READ_AT_START = ("PYTHON", "LANG", "LC_")


def can_run(environment: Mapping[str, str]) -> bool:
    """Return True on Linux, if a run with this environment needs no Python that starts with it."""
    names = {name for name in {*environment, *os.environ} if name.startswith(_READ_AT_START)}
    return sys.platform == "linux" and all(environment.get(name) == os.environ.get(name) for name in names)


def run(
    arguments: Sequence[str], environment: Mapping[str, str], directory: Path, seconds: float
) -> subprocess.CompletedProcess[bytes]:
    """Run a command to its end; its standard input is empty.

    Raises:
        subprocess.TimeoutExpired: it took longer, and was killed.
    """
    request = {"arguments": arguments, "environment": dict(environment), "directory": str(directory)}
    ours, theirs = socket.socketpair()
    with ours, TemporaryFile() as output, TemporaryFile() as errors:
        with theirs:
            descriptors = [output.fileno(), errors.fileno(), theirs.fileno()]
            socket.send_fds(_loaded(), [json.dumps(request).encode()], descriptors)
        status = _status(ours, seconds)
        if status is None:
            raise subprocess.TimeoutExpired([PROGRAM, *arguments], seconds)
        output.seek(0)
        errors.seek(0)
        return subprocess.CompletedProcess([PROGRAM, *arguments], status, output.read(), errors.read())


def _status(reply: socket.socket, seconds: float) -> int | None:
    """Return the exit status of a run; None if it was killed, because it took longer."""
    with reply.makefile("r") as lines:
        pid = int(lines.readline())  # after the program is loaded, at the first run
        reply.settimeout(seconds)
        try:
            return int(lines.readline())
        except TimeoutError:
            os.kill(pid, signal.SIGKILL)
            return None


@cache
def _loaded() -> socket.socket:
    """Return where to send requests. The process behind it ends with this one, which closes its end then."""
    ours, theirs = socket.socketpair(type=socket.SOCK_SEQPACKET)
    with theirs:
        os.set_inheritable(theirs.fileno(), True)  # noqa: FBT003 - the only argument
        command = [sys.executable, "-P", __file__, str(theirs.fileno())]
        # No Popen, which would warn at the end of pytest that its process still runs.
        null = [(os.POSIX_SPAWN_OPEN, stream, os.devnull, os.O_RDWR, 0) for stream in (0, 1)]
        os.posix_spawn(sys.executable, command, os.environ, file_actions=null, setsid=True)
    return ours


def _serve(requests: socket.socket) -> None:
    """Fork for each request; return in the forked processes alone."""
    with selectors.DefaultSelector() as selector:
        selector.register(requests, selectors.EVENT_READ)
        while True:
            for key, _ in selector.select():
                if key.data is not None:
                    selector.unregister(key.fileobj)
                    _tell_end(key.fd, *key.data)
                    continue
                request, descriptors, _, _ = socket.recv_fds(requests, _REQUEST_BYTES, 3)
                if not request:
                    sys.exit()
                output, errors, reply = descriptors
                pid = os.fork()
                if not pid:
                    requests.close()
                    _become(request, output, errors)
                    return
                os.close(output)
                os.close(errors)
                os.write(reply, b"%d\n" % pid)
                selector.register(os.pidfd_open(pid), selectors.EVENT_READ, (pid, reply))


def _tell_end(process: int, pid: int, reply: int) -> None:
    """Tell the exit status, as subprocess does."""
    _, status = os.waitpid(pid, 0)
    with suppress(BrokenPipeError):  # nobody waits any longer
        os.write(reply, b"%d\n" % os.waitstatus_to_exitcode(status))
    os.close(process)
    os.close(reply)


def _become(request: bytes, output: int, errors: int) -> None:
    """Take on all that a process is started with."""
    asked = json.loads(request)
    os.dup2(output, 1)
    os.dup2(errors, 2)
    os.environ.clear()
    os.environ.update(asked["environment"])
    time.tzset()
    os.chdir(asked["directory"])
    sys.argv = [str(PROGRAM), *asked["arguments"]]


def _load() -> None:
    """Import all commands, with what they import only when they run."""
    commands = import_module("worker.cli")
    for module in pkgutil.walk_packages(commands.__path__, "worker.cli."):
        import_module(module.name)
    gc.freeze()


if __name__ == "__main__":
    _load()
    _serve(socket.socket(fileno=int(sys.argv[1])))
    from worker.cli.main import main

    main()
