"""Runs a real Redis Cluster on 127.0.0.1, and does to it what happens to clusters.

A node is killed, a replica takes over, a slot moves to another node key by key. The nodes end by themselves, as every
server of the sandbox does (``sandbox.redis_server``).
"""

from __future__ import annotations

from contextlib import ExitStack, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

from redis.crc import key_slot
from redis.exceptions import RedisError

from sandbox.free_port import free_port
from sandbox.live_server import ask, is_linked, wait_for
from sandbox.redis_server import HOST, RedisServer, RedisServerError
from sandbox.started import Started

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from sandbox.server_binaries import ServerBinary

SLOTS = 16_384
_MIGRATE_MS = 5_000
_KEYS_AT_ONCE = 100
#: A node gives an ordered failover up after five seconds.
_FAILOVER_SECONDS = 6.0
_FAILOVERS_TRIED = 4


@dataclass(frozen=True, slots=True)
class _Node:
    """A line of ``CLUSTER NODES``."""

    id: str
    flags: frozenset[str]
    primary_id: str
    epoch: int
    slots: tuple[range, ...]

    @classmethod
    def read(cls, line: str) -> _Node:
        id_, _, flags, primary_id, _, _, epoch, _, *slots = line.split()
        owned = [slot.split("-") for slot in slots if not slot.startswith("[")]  # in brackets: a slot that is moved
        return cls(
            id_, frozenset(flags.split(",")), primary_id, int(epoch),
            tuple(range(int(ends[0]), int(ends[-1]) + 1) for ends in owned),
        )  # fmt: skip


class RedisCluster(Started):
    """A cluster with its nodes, from ``start`` (or ``with``) to ``close``.

    Args:
        binary: the program of all nodes.
        options: lines of each node's configuration, as :class:`RedisServer` takes them.
        primaries: nodes that own slots.
        replicas: replicas of each of them.
        node_timeout_ms: a node that is silent for so long has failed, and its replica takes over.
    """

    def __init__(
        self,
        binary: ServerBinary | None = None,
        options: Mapping[str, str | int | Sequence[str]] | None = None,
        *,
        primaries: int = 3,
        replicas: int = 1,
        node_timeout_ms: int = 1_500,
    ) -> None:
        self._primaries = primaries
        self._options: dict[str, str | int | Sequence[str]] = {
            "cluster-enabled": "yes",
            "cluster-node-timeout": node_timeout_ms,
            "cluster-replica-validity-factor": 0,  # a replica takes over, however old its data are
            "repl-diskless-sync-delay": 0,
            **(options or {}),
        }
        self._ports = [free_port(HOST) for _ in range(primaries * (1 + replicas))]
        self.servers = [RedisServer(binary, {**self._options, "cluster-port": port}) for port in self._ports]
        self._servers = ExitStack()

    @property
    def addresses(self) -> str:
        """``host:port`` of each node, with commas between them."""
        return ",".join(f"{HOST}:{server.port}" for server in self.servers)

    def start(self) -> None:
        """Start the nodes and make them one cluster.

        Raises:
            RedisServerError: it did not come about.
        """
        for server in self.servers:
            self._servers.enter_context(server)
        first = self.servers[0]
        for number, (server, port) in enumerate(zip(self.servers, self._ports, strict=True), start=1):
            ask(server, "CLUSTER SET-CONFIG-EPOCH", number)
            ask(first, "CLUSTER MEET", HOST, server.port, port)
        for number, server in enumerate(self.servers[: self._primaries]):
            begin, end = (SLOTS * at // self._primaries for at in (number, number + 1))
            ask(server, "CLUSTER ADDSLOTSRANGE", begin, end - 1)
        wait_for(
            lambda: all(len(nodes(each)) == len(self.servers) for each in self.servers), "nodes that know all others"
        )
        for number, server in enumerate(self.servers[self._primaries :]):
            ask(server, "CLUSTER REPLICATE", ask(self.servers[number % self._primaries], "CLUSTER MYID"))
        self.wait_healthy()

    def close(self) -> None:
        """Kill the nodes and remove their data."""
        self._servers.close()

    def owner(self, key: str) -> RedisServer:
        """Return the running node that owns the key's slot.

        Raises:
            RedisServerError: there is none at present.
        """
        slot, owners = key_slot(key.encode()), []
        for server in self.servers:
            with suppress(RedisError, OSError):
                node = _itself(server)
                if any(slot in owned for owned in node.slots):
                    owners.append((node.epoch, server.port, server))
        if not owners:
            raise RedisServerError(f"no node of the cluster owns slot {slot}")
        return max(owners)[2]

    def replicas(self, primary: RedisServer) -> list[RedisServer]:
        """Return the running replicas of a node."""
        id_ = ask(primary, "CLUSTER MYID")
        return [server for server in self.servers if server.running and _itself(server).primary_id == id_]

    def kill_owner(self, key: str) -> RedisServer:
        """Kill the node that owns the key (SIGKILL), and return it; its replica takes over in a while."""
        owner = self.owner(key)
        owner.kill()
        return owner

    def fail_over(self, key: str) -> RedisServer:
        """Let a replica of the key's owner take over in good order, and return the new owner once it is that.

        Raises:
            RedisServerError: the owner has no replica, or it did not take over.
        """
        owner = self.owner(key)
        replicas = self.replicas(owner)
        if not replicas:
            raise RedisServerError("the owner of the key has no replica that could take over")
        for tries_left in reversed(range(_FAILOVERS_TRIED)):
            ask(replicas[0], "CLUSTER FAILOVER")
            try:
                wait_for(
                    lambda: self.owner(key) is replicas[0] and "master" not in _itself(owner).flags,
                    "a failover",
                    _FAILOVER_SECONDS,
                )
            except RedisServerError:
                # The other primaries do not vote twice within two node timeouts; a node gives up without a word then.
                if not tries_left:
                    raise
            else:
                break
        return replicas[0]

    def revive(self) -> None:
        """Start the nodes that were killed, on the data they had."""
        for server in self.servers:
            if not server.running:
                server.start()

    def wait_healthy(self) -> None:
        """Wait until each slot has an owner that runs, and each replica that runs follows its primary.

        Raises:
            RedisServerError: it took too long.
        """
        wait_for(lambda: all(_is_well(server) for server in self.servers if server.running), "a healthy cluster")

    def begin_move(self, key: str) -> SlotMove:
        """Begin to move the key's slot to another primary; no key moves yet."""
        source, slot = self.owner(key), key_slot(key.encode())
        target = next(each for each in self._running_primaries() if each is not source)
        ask(target, "CLUSTER SETSLOT", slot, "IMPORTING", ask(source, "CLUSTER MYID"))
        ask(source, "CLUSTER SETSLOT", slot, "MIGRATING", ask(target, "CLUSTER MYID"))
        return SlotMove(self, slot, source, target)

    def move_slot(self, key: str) -> RedisServer:
        """Move the key's slot with all its keys to another primary, and return that."""
        move = self.begin_move(key)
        move.finish()
        return move.target

    def _running_primaries(self) -> Iterator[RedisServer]:
        return (server for server in self.servers if server.running and "master" in _itself(server).flags)

    def assign(self, slot: int, owner: RedisServer, source: RedisServer) -> None:
        """Tell all primaries who owns a slot from now on, the new owner first."""
        id_ = ask(owner, "CLUSTER MYID")
        ask(owner, "CLUSTER SETSLOT", slot, "NODE", id_)
        ask(source, "CLUSTER SETSLOT", slot, "NODE", id_)
        for server in self._running_primaries():
            if server is not owner and server is not source:
                ask(server, "CLUSTER SETSLOT", slot, "NODE", id_)


@dataclass(frozen=True, slots=True)
class SlotMove:
    """A slot that is being moved: its keys are at its old owner or at its new one."""

    cluster: RedisCluster
    slot: int
    source: RedisServer
    target: RedisServer

    def keys_left(self, count: int = 1_000_000) -> list[bytes]:
        """Return keys of the slot that have not moved yet, so many at most."""
        answer: list[bytes] = ask(self.source, "CLUSTER GETKEYSINSLOT", self.slot, count, decode=False)
        return answer

    def move(self, keys: Iterable[bytes | str]) -> None:
        """Move these keys; one that is not there is passed over."""
        ask(self.source, "MIGRATE", HOST, self.target.port, "", 0, _MIGRATE_MS, "KEYS", *keys)

    def finish(self) -> None:
        """Move the keys that are left, and give the slot to its new owner."""
        while keys := self.keys_left(_KEYS_AT_ONCE):
            self.move(keys)
        self.cluster.assign(self.slot, self.target, self.source)


def nodes(server: RedisServer) -> list[_Node]:
    """Return the nodes that a node knows."""
    return [_Node.read(line) for line in ask(server, "CLUSTER NODES").splitlines()]


def _itself(server: RedisServer) -> _Node:
    return next(node for node in nodes(server) if "myself" in node.flags)


def _is_well(server: RedisServer) -> bool:
    known = nodes(server)
    primaries = [node for node in known if "master" in node.flags and node.slots]
    is_covered = sum(len(owned) for node in primaries for owned in node.slots) == SLOTS
    has_failed = any("fail" in node.flags or "fail?" in node.flags for node in primaries)
    follows = "master" in _itself(server).flags or is_linked(server)
    return is_covered and not has_failed and follows and "cluster_state:ok" in ask(server, "CLUSTER INFO")
