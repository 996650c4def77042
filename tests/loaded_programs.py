"""Runs ``lock-worker`` and workers many times and loads them once: to load them costs more than most of what they do.

For each program one process of each of pytest's loads it, and forks for each run. A run has a process, an environment,
a directory and an output of its own, goes through the program's ``main``, and ends as any Python program does.
"""

from __future__ import annotations

import atexit
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
CELERY = Path(sysconfig.get_path("scripts")) / "celery"
_REQUEST_BYTES = 200_000
#: Variables that Python reads when it starts, so that a forked process cannot obey them.
_READ_AT_START = ("PYTHON", "LANG", "LC_")
#: Of the package ``worker``, what reads the environment as it is imported, needs an extra, or is no part of a worker.
_IMPORTED_BY_EACH_WORKER = (
    "worker.celery.", "worker.celery_bridge.startup_output.", "worker.cli.", "worker.observe.tracing."
)  # fmt: skip


def can_run(environment: Mapping[str, str]) -> bool:
    """Return True on Linux, if a run with this environment needs no Python that starts with it."""
    names = {name for name in {*environment, *os.environ} if name.startswith(_READ_AT_START)}
    return sys.platform == "linux" and all(environment.get(name) == os.environ.get(name) for name in names)


class ForkedProcess:
    """A run of a loaded program, with what tests use of :class:`subprocess.Popen`.

    Its output goes to the files with these descriptors; its standard input is empty.
    """

    def __init__(
        self,
        program: Path,
        arguments: Sequence[str],
        *,
        environment: Mapping[str, str],
        directory: Path,
        output: int,
        errors: int,
    ) -> None:
        self.args = [str(program), *arguments]
        self.returncode: int | None = None
        request = {"arguments": self.args, "environment": dict(environment), "directory": str(directory)}
        self._reply, theirs = socket.socketpair(type=socket.SOCK_SEQPACKET)
        with theirs:
            socket.send_fds(_loaded(program), [json.dumps(request).encode()], [output, errors, theirs.fileno()])
        self.pid = int(self._reply.recv(20))  # after the program is loaded, at the first run

    def poll(self) -> int | None:
        """Return the exit status, as subprocess tells it; None: it runs."""
        with suppress(subprocess.TimeoutExpired):
            self.wait(0)
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        """Return the exit status once it has ended.

        Raises:
            subprocess.TimeoutExpired: it runs for longer than these seconds.
        """
        if self.returncode is None:
            self._reply.settimeout(timeout)
            try:
                self.returncode = int(self._reply.recv(20))
            except (TimeoutError, BlockingIOError):
                raise subprocess.TimeoutExpired(self.args, timeout or 0) from None
            self._reply.close()
        return self.returncode

    def send_signal(self, number: int) -> None:
        """Send a signal, unless it has ended."""
        if self.poll() is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        """Send SIGKILL, unless it has ended."""
        self.send_signal(signal.SIGKILL)


def run(
    arguments: Sequence[str], environment: Mapping[str, str], directory: Path, seconds: float
) -> subprocess.CompletedProcess[bytes]:
    """Run ``lock-worker`` to its end.

    Raises:
        subprocess.TimeoutExpired: it took longer, and was killed.
    """
    with TemporaryFile() as output, TemporaryFile() as errors:
        process = ForkedProcess(
            PROGRAM, arguments, environment=environment, directory=directory, output=output.fileno(),
            errors=errors.fileno(),
        )  # fmt: skip
        try:
            status = process.wait(seconds)
        finally:
            process.kill()
            process.wait()
        output.seek(0)
        errors.seek(0)
        return subprocess.CompletedProcess(process.args, status, output.read(), errors.read())


@cache
def _loaded(program: Path) -> socket.socket:
    """Return where to send requests. The process behind it ends with this one, which closes its end then."""
    ours, theirs = socket.socketpair(type=socket.SOCK_SEQPACKET)
    with theirs:
        os.set_inheritable(theirs.fileno(), True)  # noqa: FBT003 - the only argument
        command = [sys.executable, "-P", __file__, str(theirs.fileno()), str(program)]
        # No Popen, which would warn at the end of pytest that its process still runs.
        null = [(os.POSIX_SPAWN_OPEN, stream, os.devnull, os.O_RDWR, 0) for stream in (0, 1)]
        os.posix_spawn(sys.executable, command, os.environ, file_actions=null, setsid=True)
    atexit.register(ours.close)
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
                    _close_all_of(selector)
                    os.close(reply)
                    _become(request, output, errors)
                    return
                os.close(output)
                os.close(errors)
                os.write(reply, b"%d" % pid)
                selector.register(os.pidfd_open(pid), selectors.EVENT_READ, (pid, reply))


def _close_all_of(selector: selectors.BaseSelector) -> None:
    """Close what a forked process has of the loaded one: the requests, and the replies to other runs."""
    for key in list(selector.get_map().values()):
        os.close(key.fd)
        if key.data is not None:
            os.close(key.data[1])


def _tell_end(process: int, pid: int, reply: int) -> None:
    """Tell the exit status, as subprocess does."""
    _, status = os.waitpid(pid, 0)
    with suppress(BrokenPipeError):  # nobody waits any longer
        os.write(reply, b"%d" % os.waitstatus_to_exitcode(status))
    os.close(process)
    os.close(reply)


def _become(request: bytes, output: int, errors: int) -> None:
    """Take on all that a process is started with."""
    asked = json.loads(request)
    for given, stream in ((output, 1), (errors, 2)):
        os.dup2(given, stream)
        os.close(given)
    os.environ.clear()
    os.environ.update(asked["environment"])
    time.tzset()
    os.chdir(asked["directory"])
    sys.argv = asked["arguments"]


def _load_the_command_line() -> None:
    """Import all commands, with what they import only when they run."""
    commands = import_module("worker.cli")
    for module in pkgutil.walk_packages(commands.__path__, "worker.cli."):
        import_module(module.name)


def _load_the_worker() -> None:
    """Import what a worker imports, but for what reads the environment as it is imported, and what is optional."""
    for module in ("celery.bin.celery", "celery.app.amqp", "kombu.transport.redis", "tasks.lock_conversation"):
        import_module(module)
    for found in pkgutil.walk_packages(import_module("worker").__path__, "worker."):
        if not f"{found.name}.".startswith(_IMPORTED_BY_EACH_WORKER):
            import_module(found.name)


if __name__ == "__main__":
    is_worker = sys.argv[2] == str(CELERY)
    (_load_the_worker if is_worker else _load_the_command_line)()
    gc.freeze()
    _serve(socket.socket(fileno=int(sys.argv[1])))
    if is_worker:
        from celery.__main__ import main
    else:
        from worker.cli.main import main

    main()
