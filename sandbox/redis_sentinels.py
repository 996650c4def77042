"""Runs a real primary with its replicas and the sentinels that watch them, on 127.0.0.1.

With a network between them, and between them and their clients, the primary can be cut off from the others.
"""

from __future__ import annotations

from contextlib import ExitStack
from typing import TYPE_CHECKING, Any, TypeAlias

from sandbox.live_server import ask, is_linked, wait_for
from sandbox.network import SERVERS_HOST, Network
from sandbox.redis_server import HOST, RedisServer
from sandbox.started import Started

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from sandbox.network import Line
    from sandbox.server_binaries import ServerBinary

    Options: TypeAlias = dict[str, str | int | Sequence[str]]

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
    """A primary, its replicas and three sentinels, from ``start`` (or ``with``) to ``close``.

    Args:
        binary: the program of all servers.
        options: lines of the configuration of primary and replicas, as :class:`RedisServer` takes them.
        sentinel_options: lines of each sentinel's configuration beside what it watches.
        replicas: how many.
        down_after_ms: a primary that is silent for so long is down, and a replica is promoted.
        with_network: whether all connections between them, and those of clients, go over a network that can be cut.
    """

    def __init__(
        self,
        binary: ServerBinary | None = None,
        options: Mapping[str, str | int | Sequence[str]] | None = None,
        *,
        sentinel_options: Mapping[str, str | int | Sequence[str]] | None = None,
        replicas: int = 1,
        down_after_ms: int = 1_000,
        with_network: bool = False,
    ) -> None:
        self._binary = binary
        self._options: Options = {"repl-diskless-sync-delay": 0, **(options or {})}
        self._sentinel_options = dict(sentinel_options or {})
        self._replicas = replicas
        self._down_after_ms = down_after_ms
        self._stack = ExitStack()
        self._network = Network() if with_network else None
        self._lines: dict[RedisServer, Line] = {}
        self.servers: list[RedisServer] = []
        self.sentinels: list[Sentinel] = []

    @property
    def addresses(self) -> str:
        """``host:port`` of each sentinel, with commas between them."""
        return ",".join(f"{HOST}:{self.port_of(sentinel)}" for sentinel in self.sentinels)

    def port_of(self, server: RedisServer) -> int:
        """Return the port by which clients, and other servers, reach a server or a sentinel."""
        return self._lines[server].port if server in self._lines else server.port

    def start(self) -> None:
        """Start all servers, and wait until the sentinels know each other and the replicas.

        Raises:
            RedisServerError: it did not come about.
        """
        if self._network is not None:
            self._stack.enter_context(self._network)
        primary = self._start_server()
        of_replica: Options = {"replicaof": f"{HOST} {self.port_of(primary)}"}
        if "requirepass" in self._options:
            of_replica["masterauth"] = self._options["requirepass"]
        self.servers = [primary, *(self._start_server(of_replica) for _ in range(self._replicas))]
        for replica in self.servers[1:]:
            _wait_linked(replica)
        for _ in range(3):
            self.sentinels.append(self._start_sentinel(self._watch(primary)))
        self.wait_healthy()

    def _start_server(self, own: Options | None = None) -> RedisServer:
        options = {**self._options, **(own or {})}
        if self._network is None:
            return self._stack.enter_context(RedisServer(self._binary, options))
        line = self._network.line()
        known_as: Options = {
            "bind-source-addr": SERVERS_HOST,
            "replica-announce-ip": HOST,
            "replica-announce-port": line.port,
        }
        server = self._stack.enter_context(RedisServer(self._binary, {**options, **known_as}))
        line.server_port, self._lines[server] = server.port, line
        return server

    def _start_sentinel(self, watch: list[str]) -> Sentinel:
        """Start one. The line to it is for clients alone, since sentinels reach each other whatever is cut."""
        options: Options = {**self._sentinel_options, "sentinel": watch}
        if self._network is None:
            return self._stack.enter_context(Sentinel(self._binary, options))
        options |= {"bind-source-addr": SERVERS_HOST, "sentinel": [*watch, f"announce-ip {HOST}"]}
        sentinel = self._stack.enter_context(Sentinel(self._binary, options))
        self._lines[sentinel] = line = self._network.line()
        line.server_port = sentinel.port
        return sentinel

    def _watch(self, primary: RedisServer) -> list[str]:
        watch = [f"monitor {MASTER_NAME} {HOST} {self.port_of(primary)} {_QUORUM}"]
        watch += [f"down-after-milliseconds {MASTER_NAME} {self._down_after_ms}"]
        # A failover that failed is tried again after twice as long.
        watch += [f"failover-timeout {MASTER_NAME} {3 * self._down_after_ms}"]
        if "requirepass" in self._options:
            watch += [f"auth-pass {MASTER_NAME} {self._options['requirepass']}"]
        return watch

    def close(self) -> None:
        """Kill all servers and remove their data."""
        self._stack.close()

    def primary(self) -> RedisServer:
        """Return the server that most sentinels call the primary; it may be down."""
        ports = self._named()
        port = max(ports, key=ports.count)
        return next(server for server in self.servers if self.port_of(server) == port)

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

    def cut_off_primary(self, *, with_clients: bool) -> RedisServer:
        """Cut the network between the primary and the others, and return it; it goes on and knows of nothing.

        Needs ``with_network``. A replica is promoted in a while, until ``heal`` is called.

        Args:
            with_clients: clients are on the primary's side, and reach no sentinel; else they do not reach the primary.
        """
        primary = self.primary()
        self._lines[primary].cut(for_clients=not with_clients)
        if with_clients:
            for sentinel in self.sentinels:
                self._lines[sentinel].cut(for_clients=True)
        return primary

    def heal(self) -> None:
        """Heal the network. A sentinel makes an old primary a replica after about ten seconds."""
        for line in self._lines.values():
            line.heal()

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
        wait_for(lambda: len(set(self._named())) == 1, "sentinels that name the same primary")
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

    def _know_the_replicas(self) -> bool:
        primary = self.primary()
        ports = [str(self.port_of(server)) for server in self.servers if server is not primary]
        return all(port in str(self._ask(each, "REPLICAS")) for each in self._running() for port in ports)

    def _ask(self, sentinel: Sentinel, name: str) -> Any:
        return ask(sentinel, f"SENTINEL {name}", MASTER_NAME)


def _wait_linked(replica: RedisServer) -> None:
    wait_for(lambda: is_linked(replica), "a replica that follows")
