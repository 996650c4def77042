"""The Redis of a round: a single server, a primary with sentinels, or a cluster; and the faults that befall it.

Where a failover can come, what a primary has acknowledged can be forgotten: a replica gets it a moment later. So there
producers and operators count as acknowledged only what a replica has too. Sentinels have a gap in that: while they
replace a primary that lives, its other replicas acknowledge its writes, and then follow the new one, which lacks them.
Where there are sentinels, all connections go over a network that can be cut.
"""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Protocol

import redis
from redis.backoff import NoBackoff
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import MovedError, ReadOnlyError, RedisError
from redis.retry import Retry

from sandbox.live_server import ask
from sandbox.redis_cluster import RedisCluster
from sandbox.redis_sentinels import MASTER_NAME, RedisSentinels
from sandbox.redis_server import HOST, RedisServer, RedisServerError
from tests.chaos.names import QUEUE, RESULTS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from sandbox.server_binaries import ServerBinary
    from tests.chaos.plan import Topology

#: Redis keeps what it has acknowledged; without that nobody could promise anything.
_OPTIONS: dict[str, str | int | Sequence[str]] = {"appendonly": "yes", "appendfsync": "always"}
#: As the docs advise: a primary without a replica refuses writes, after some seconds.
_OF_SENTINELS: dict[str, str | int | Sequence[str]] = {
    **_OPTIONS,
    "min-replicas-to-write": 1,
    "min-replicas-max-lag": 5,
}
#: Shorter than any time-out of a client.
_WAIT_MS = 700
_KEYS_AT_ONCE = 20


class NoReplicaHasItError(RedisConnectionError):
    """The primary alone has it; should another one take its place, it is forgotten."""


class Servers(Protocol):
    """The Redis of a round."""

    #: Where workers find it.
    url: str
    #: For so many seconds after a failover began, what an old primary did may be forgotten; 0: there are no failovers.
    settle_seconds: float
    #: While a primary that lives is replaced, it goes on beside the new one, and with replicas that have not left it.
    has_two_primaries: bool

    @property
    def all(self) -> Sequence[RedisServer]:
        """The servers that hold data."""

    def client(self, **options: Any) -> redis.Redis:
        """Return a client of the server that has the queue, whichever that is at the moment. It repeats nothing."""

    def run(self, client: redis.Redis, *command: Any) -> Any:
        """Run a command and return its answer when it is sure that it is not forgotten.

        Raises:
            RedisError, OSError: it is not sure.
        """

    def kill(self) -> None:
        """Kill the server that has the queue."""

    def start(self) -> None:
        """Start what was killed or stopped."""

    def stop(self) -> None:
        """Stop the server that has the queue, in order."""

    def pause(self) -> None:
        """Let the server that has the queue stand."""

    def resume(self) -> None:
        """Let it go on."""

    def fail_over(self) -> None:
        """Order a failover."""

    def move_slot(self) -> None:
        """Move the queue's slot to another node."""

    def cut_off(self, *, with_clients: bool) -> None:
        """Cut the network between the server that has the queue and the others, from its clients or with them."""

    def heal(self) -> frozenset[bytes]:
        """Heal it, and return the events that the server which was cut off has, before it becomes a replica."""

    def wait_healthy(self) -> None:
        """Wait until all is well. Nothing befalls the server before."""


class Single:
    """One server."""

    settle_seconds = 0.0
    has_two_primaries = False

    def __init__(self, server: RedisServer) -> None:
        self._server = server
        self.url = server.url
        self.all = [server]
        self.kill, self.start, self.stop = server.kill, server.start, server.stop
        self.pause, self.resume = server.pause, server.resume

    def client(self, **options: Any) -> redis.Redis:
        """As the protocol says."""
        return redis.Redis.from_url(self.url, **{"retry": Retry(NoBackoff(), 0), **options})

    def run(self, client: redis.Redis, *command: Any) -> Any:
        """Run it: the server has what it has acknowledged, whatever happens to it."""
        return client.execute_command(*command)  # type: ignore[no-untyped-call]

    def fail_over(self) -> None:
        """There is nothing to fail over to."""
        raise NotImplementedError

    def move_slot(self) -> None:
        """There are no slots."""
        raise NotImplementedError

    def cut_off(self, *, with_clients: bool) -> None:
        """There are no others."""
        raise NotImplementedError

    def heal(self) -> frozenset[bytes]:
        """There is no network."""
        raise NotImplementedError

    def wait_healthy(self) -> None:
        """It is well when it runs."""


class _Replicated:
    """What sentinels and a cluster have in common."""

    def __init__(self, servers: Sequence[RedisServer]) -> None:
        self.all = servers
        self._paused: RedisServer | None = None

    def primary(self) -> RedisServer:
        """Return the server that has the queue."""
        raise NotImplementedError

    def port(self) -> int:
        """Return the port by which clients reach that server."""
        return self.primary().port

    def client(self, **options: Any) -> redis.Redis:
        """As the protocol says."""
        arguments = {"retry": Retry(NoBackoff(), 0), **options}
        pool = redis.ConnectionPool(connection_class=_ToPrimary, port=self.port, **arguments)
        return redis.Redis.from_pool(pool)

    def run(self, client: redis.Redis, *command: Any) -> Any:
        """Run it, and wait until a replica has it too."""
        return run_acknowledged(client, *command)

    def kill(self) -> None:
        """As the protocol says."""
        self.primary().kill()

    def stop(self) -> None:
        """As the protocol says."""
        self.primary().stop()

    def pause(self) -> None:
        """As the protocol says."""
        self._paused = self.primary()
        self._paused.pause()

    def resume(self) -> None:
        """As the protocol says."""
        if self._paused is not None:
            self._paused.resume()


class Sentinels(_Replicated):
    """A primary, two replicas and three sentinels: a majority of the data's three copies is a primary and a replica."""

    settle_seconds = 15.0
    has_two_primaries = True

    def __init__(self, servers: RedisSentinels) -> None:
        super().__init__(servers.servers)
        self._servers = servers
        self._cut_off: RedisServer | None = None
        self.url = f"redis+sentinel://{servers.addresses}/{MASTER_NAME}/0"
        self.sentinel_url = f"sentinel://{servers.addresses.split(',')[0]}"
        self.start, self.wait_healthy = servers.revive, servers.wait_healthy

    def primary(self) -> RedisServer:
        """As the sentinels say."""
        return self._servers.primary()

    def port(self) -> int:
        """That of the network."""
        return self._servers.port_of(self.primary())

    def cut_off(self, *, with_clients: bool) -> None:
        """As the protocol says."""
        self._cut_off = self._servers.cut_off_primary(with_clients=with_clients)

    def heal(self) -> frozenset[bytes]:
        """As the protocol says."""
        assert self._cut_off is not None
        entries: Any = ask(self._cut_off, "XRANGE", RESULTS, "-", "+", decode=False)
        self._servers.heal()
        return frozenset(fields[b"event"] for _, fields in entries)

    def fail_over(self) -> None:
        """Let the sentinels promote a replica."""
        self._servers.fail_over()

    def move_slot(self) -> None:
        """There are no slots."""
        raise NotImplementedError


class Cluster(_Replicated):
    """Three primaries with a replica each."""

    settle_seconds = 6.0
    has_two_primaries = False

    def __init__(self, cluster: RedisCluster) -> None:
        super().__init__(cluster.servers)
        self._cluster = cluster
        self.url = f"redis+cluster://{cluster.addresses}/"
        self.start, self.wait_healthy = cluster.revive, cluster.wait_healthy

    def primary(self) -> RedisServer:
        """As its nodes say."""
        return self._cluster.owner(QUEUE)

    def cut_off(self, *, with_clients: bool) -> None:
        """It has no network of its own."""
        raise NotImplementedError

    def heal(self) -> frozenset[bytes]:
        """It has no network of its own."""
        raise NotImplementedError

    def fail_over(self) -> None:
        """Let a replica take over."""
        self._cluster.fail_over(QUEUE)

    def move_slot(self) -> None:
        """Move it in small steps, so that it takes a while."""
        move = self._cluster.begin_move(QUEUE)
        while keys := move.keys_left(_KEYS_AT_ONCE):
            move.move(keys)
        move.finish()


class _ToPrimary(redis.Connection):
    """A connection that asks where the primary is each time it connects, and leaves a server that is none any more."""

    def __init__(self, *, port: Callable[[], int], **arguments: Any) -> None:
        super().__init__(**arguments)  # type: ignore[no-untyped-call]
        self._port_now = port

    def connect_check_health(self, *args: Any, **options: Any) -> None:
        """Connect, unless it is connected."""
        if self._sock is None:
            try:
                self.host, self.port = HOST, self._port_now()
            except (RedisServerError, RedisError, OSError, ValueError) as error:
                raise RedisConnectionError(f"there is no primary: {error}") from error
        super().connect_check_health(*args, **options)

    def read_response(self, *args: Any, **options: Any) -> Any:
        """Return the next answer."""
        try:
            return super().read_response(*args, **options)
        except (MovedError, ReadOnlyError):
            self.disconnect()  # type: ignore[no-untyped-call]
            raise


@contextmanager
def start_servers(topology: Topology, binary: ServerBinary | None) -> Iterator[Servers]:
    """Start the Redis of a round, and end it."""
    if topology == "sentinel":
        with RedisSentinels(binary, _OF_SENTINELS, replicas=2, with_network=True) as sentinels:
            yield Sentinels(sentinels)
    elif topology == "cluster":
        with RedisCluster(binary, _OPTIONS) as cluster:
            yield Cluster(cluster)
    else:
        with RedisServer(binary, _OPTIONS) as server:
            yield Single(server)


def run_acknowledged(client: redis.Redis, *command: Any) -> Any:
    """Run a command and wait until a replica has it too.

    Raises:
        NoReplicaHasItError: no replica said so in time.
    """
    with client.pipeline(transaction=False) as both:
        both.execute_command(*command)  # type: ignore[no-untyped-call]
        both.execute_command("WAIT", 1, _WAIT_MS)  # type: ignore[no-untyped-call]
        answer, replicas = both.execute()
    if not replicas:
        raise NoReplicaHasItError("no replica has it yet")
    return answer


def everywhere(servers: Servers, command: str, *arguments: str) -> None:
    """Run a command on each server that answers."""
    for server in servers.all:
        try:
            ask(server, command, *arguments)
        except (RedisError, OSError):
            continue
