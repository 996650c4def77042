"""Runs a real primary with its replicas and the sentinels that watch them, on 127.0.0.1."""

from __future__ import annotations

from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

from sandbox.live_server import ask, is_linked, wait_for
from sandbox.redis_server import HOST, RedisServer
from sandbox.started import Started

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from sandbox.server_binaries import ServerBinary

MASTER_NAME = "mymaster"
_QUORUM = 2


class Sentinel(RedisServer):
    """One sentinel; Redis and Valkey servers have that mode. It keeps what it knows over a restart."""

    ready_line = "Sentinel ID is"
    arguments = ("--sentinel",)

    def write_config(self, file: Path) -> None:
        """Write the configuration before the first start: from then on the sentinel writes it itself."""
        if not file.exists():
            super().write_config(file)


class RedisSentinels(Started):
    """A primary, its replicas and three sentinels, from `start` (or ``with``) to `close`.

    Args:
        binary: the program of all servers.
        options: lines of the configuration of primary and replicas, as :class:`RedisServer` takes them.
        sentinel_options: lines of each sentinel's configuration beside what it watches.
        replicas: how many.
        down_after_ms: a primary that is silent for so long is down, and a replica is promoted.
    """

    def __init__(
        self,
        binary: ServerBinary | None = None,
        options: Mapping[str, str | int | Sequence[str]] | None = None,
        *,
        sentinel_options: Mapping[str, str | int | Sequence[str]] | None = None,
        replicas: int = 1,
        down_after_ms: int = 1_000,
    ) -> None:
        self._binary = binary
        self._options = {"repl-diskless-sync-delay": 0, **(options or {})}
        self._sentinel_options = dict(sentinel_options or {})
        self._replicas = replicas
        self._down_after_ms = down_after_ms
        self._stack = ExitStack()
        self.servers: list[RedisServer] = []
        self.sentinels: list[Sentinel] = []

    @property
    def addresses(self) -> str:
        """``host:port`` of each sentinel, with commas between them."""
        return ",".join(f"{HOST}:{sentinel.port}" for sentinel in self.sentinels)

    def start(self) -> None:
        """Start all servers, and wait until the sentinels know each other and the replicas.

        Raises:
            RedisServerError: it did not come about.
        """
        primary = self._stack.enter_context(RedisServer(self._binary, self._options))
        of_replica = {**self._options, "replicaof": f"{HOST} {primary.port}"}
        if "requirepass" in self._options:
            of_replica["masterauth"] = self._options["requirepass"]
        replicas = [RedisServer(self._binary, of_replica) for _ in range(self._replicas)]
        self.servers = [primary, *map(self._stack.enter_context, replicas)]
        for replica in replicas:
            _wait_linked(replica)
        watch = [f"monitor {MASTER_NAME} {HOST} {primary.port} {_QUORUM}"]
        watch += [f"down-after-milliseconds {MASTER_NAME} {self._down_after_ms}"]
        # A failover that failed is tried again after twice as long.
        watch += [f"failover-timeout {MASTER_NAME} {3 * self._down_after_ms}"]
        if "requirepass" in self._options:
            watch += [f"auth-pass {MASTER_NAME} {self._options['requirepass']}"]
        for _ in range(3):
            sentinel = Sentinel(self._binary, {**self._sentinel_options, "sentinel": watch})
            self.sentinels.append(self._stack.enter_context(sentinel))
        self.wait_healthy()

    def close(self) -> None:
        """Kill all servers and remove their data."""
        self._stack.close()

    def primary(self) -> RedisServer:
        """Return the server that most sentinels call the primary; it may be down."""
        ports = self._named()
        port = max(ports, key=ports.count)
        return next(server for server in self.servers if server.port == port)

    def kill_primary(self) -> RedisServer:
        """Kill the primary (SIGKILL) and return it; a replica is promoted in a while."""
        primary = self.primary()
        primary.kill()
        return primary

    def fail_over(self) -> RedisServer:
        """Order a failover, and return the new primary once the sentinels name it.

        The old primary takes writes for some seconds more, until a sentinel makes it a replica.

        Raises:
            RedisServerError: it did not come about.
        """
        old = self.primary()
        self._ask(self._running()[0], "FAILOVER")
        wait_for(lambda: self.primary() is not old, "a failover")
        return self.primary()

    def revive(self) -> None:
        """Start what was killed, on the data it had.

        A sentinel makes an old primary a replica after about ten seconds.
        """
        for server in (*self.servers, *self.sentinels):
            if not server.running:
                server.start()

    def wait_healthy(self) -> None:
        """Wait until the sentinels that run agree, and the other servers follow the primary.

        Raises:
            RedisServerError: it took too long.
        """
        wait_for(lambda: all(self._ask(each, "CKQUORUM") for each in self._running()), "sentinels that know each other")
        wait_for(self._agree, "sentinels that name the same primary")
        primary = self.primary()
        for server in self.servers:
            if server is not primary and server.running:
                _wait_linked(server)
        wait_for(self._know_the_replicas, "sentinels that know the replicas")

    def _running(self) -> list[Sentinel]:
        return [sentinel for sentinel in self.sentinels if sentinel.running]

    def _named(self) -> list[int]:
        """The primary's port as each sentinel that runs says."""
        return [int(self._ask(each, "GET-MASTER-ADDR-BY-NAME")[1]) for each in self._running()]

    def _agree(self) -> bool:
        return len(set(self._named())) == 1

    def _know_the_replicas(self) -> bool:
        primary = self.primary()
        ports = [str(server.port) for server in self.servers if server is not primary]
        return all(port in str(self._ask(each, "REPLICAS")) for each in self._running() for port in ports)

    def _ask(self, sentinel: Sentinel, name: str) -> Any:
        return ask(sentinel, f"SENTINEL {name}", MASTER_NAME)


def _wait_linked(replica: RedisServer) -> None:
    wait_for(lambda: is_linked(replica), "a replica that follows")
