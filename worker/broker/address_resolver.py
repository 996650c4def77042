"""Resolves the address of the server where REDIS_URL does not name it: asks sentinels, or the nodes of a cluster.

Each connection resolves it when it connects, and never later: a worker closes its connections when their server is lost
or says that it is the wrong one (``worker.broker.refusals``), so that the next ones resolve it anew. redis-py does the
asking; it blocks, so a thread does that for the asyncio side.
"""

from __future__ import annotations

import random
import time
from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any, TypeAlias

from redis.backoff import NoBackoff
from redis.cluster import ClusterNode, NodesManager
from redis.crc import key_slot
from redis.exceptions import (
    AuthenticationError,
    NoPermissionError,
    RedisClusterException,
    RedisError,
    ResponseError,
    SlotNotCoveredError,
)
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import TimeoutError as RedisTimeoutError
from redis.retry import Retry
from redis.sentinel import Sentinel

from worker.broker.blocking_call import BlockingCall
from worker.broker.credentials import named_refusal
from worker.broker.redis_problems import NO_SENTINELS, NOT_A_CLUSTER, WRONG_SENTINEL_PASSWORD, unknown_master
from worker.broker.refusals import NoPrimaryError, ServerIsUnfitError, SlotNotServedError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from redis import Redis

Address: TypeAlias = tuple[str, int]
#: A sentinel's address, and the primary's state, None for an unknown one, or an error.
View: TypeAlias = tuple[str, dict[str, Any] | RedisError | None]

#: How long one sentinel or node may take to connect and to answer, in seconds. Two that are silent fit into the time
#: that a command may take.
NODE_TIMEOUT_SECONDS = 2.0


class AddressResolver(ABC):
    """Resolves the server's address. Its ``repr`` shows no secret, because Celery shows its settings on request."""

    def __init__(self) -> None:
        self._resolving = BlockingCall(self.resolve)

    async def resolve_async(self) -> Address:
        """Resolve as :meth:`resolve` does, without blocking the loop. For one loop."""
        return await self._resolving.result()

    @abstractmethod
    def resolve(self) -> Address:
        """Return host and port of the server. From any thread.

        Raises:
            ServerIsUnfitError: REDIS_URL or a setting beside it is wrong.
            RedisError: nobody who knows could be asked, or there is no such server now.
        """


class SentinelResolver(AddressResolver):
    """Asks sentinels for the address of the primary.

    Args:
        sentinels: their addresses.
        master_name: the name by which they know the primary.
        options: redis-py's arguments for connections to them: their password, TLS.
        timeout_seconds: the time that one resolution may take.
    """

    def __init__(
        self, sentinels: Sequence[Address], master_name: str, options: Mapping[str, Any], *, timeout_seconds: float
    ) -> None:
        super().__init__()
        self._master_name = master_name
        self._timeout_seconds = timeout_seconds
        # Without retries: redis-py's default ones wait half a minute for a sentinel that is down.
        self._client = Sentinel(  # type: ignore[no-untyped-call]
            sentinels, sentinel_kwargs={**options, **_TIMEOUTS, "retry": Retry(NoBackoff(), 0), "protocol": 2}
        )

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self._master_name!r})"

    __json__ = __repr__

    def resolve(self) -> Address:
        """As :meth:`AddressResolver.resolve`. The sentinel that answered is asked first the next time.

        If the time is over before that, those that were not asked are the first then.
        """
        sentinels = list(self._client.sentinels)  # another thread may replace it meanwhile
        last_ask_at = time.monotonic() + self._timeout_seconds - NODE_TIMEOUT_SECONDS
        views: list[View] = []
        for at, sentinel in enumerate(sentinels):
            if time.monotonic() > last_ask_at:
                self._client.sentinels = [*sentinels[at:], *sentinels[:at]]
                late = f"no sentinel names the primary within {self._timeout_seconds:g} seconds"
                raise RedisConnectionError(f"{late}: {_errors(views)}")
            name, view = self._view(sentinel)
            views.append((name, view))
            if isinstance(view, dict) and self.is_up(view):
                self._client.sentinels = [sentinel, *sentinels[:at], *sentinels[at + 1 :]]
                return view["ip"], view["port"]
        raise self._reason(views)

    def is_up(self, state: dict[str, Any]) -> bool:
        """Return whether a sentinel believes that the primary works."""
        return bool(self._client.check_master_state(state, self._master_name))  # type: ignore[no-untyped-call]

    def views(self) -> Iterator[View]:
        """Ask each sentinel, however long that takes."""
        return map(self._view, list(self._client.sentinels))

    def _view(self, sentinel: Redis) -> View:
        where = sentinel.connection_pool.connection_kwargs
        name = f"{where['host']}:{where['port']}"
        try:
            masters: Any = sentinel.sentinel_masters()
        except RedisError as error:
            return name, error
        return name, masters.get(self._master_name)

    def _reason(self, views: Sequence[View]) -> RedisError:
        if any(isinstance(view, dict) for _, view in views):
            return NoPrimaryError(f"the sentinels have no primary for {self._master_name} now")
        if any(view is None for _, view in views):
            return ServerIsUnfitError(unknown_master(self._master_name))
        errors = [view for _, view in views if isinstance(view, RedisError)]
        if any(isinstance(error, AuthenticationError | NoPermissionError) for error in errors):
            return ServerIsUnfitError(WRONG_SENTINEL_PASSWORD)
        if all(isinstance(error, ResponseError) for error in errors):
            return ServerIsUnfitError(NO_SENTINELS)
        return RedisConnectionError(f"no sentinel answers: {_errors(views)}")


def _errors(views: Sequence[View]) -> str:
    return _joined((name, view) for name, view in views if isinstance(view, RedisError))


def _joined(errors: Iterable[tuple[str, RedisError]]) -> str:
    return "; ".join(f"{name}: {error}" for name, error in errors)


class ClusterResolver(AddressResolver):
    """Asks the nodes of a cluster for the address of the one that has the slot of a key.

    Args:
        startup_nodes: the addresses of nodes to ask. The others are asked too, once they are known.
        key: a key in the slot.
        options: redis-py's arguments for connections to nodes.
        timeout_seconds: the time that one resolution may take.
    """

    def __init__(
        self, startup_nodes: Sequence[Address], key: str, options: Mapping[str, Any], *, timeout_seconds: float
    ) -> None:
        super().__init__()
        self._startup_nodes = list(startup_nodes)
        self._nodes = list(startup_nodes)
        self._slot = key_slot(key.encode())
        self._timeout_seconds = timeout_seconds
        self._options = {**options, **_TIMEOUTS}
        del self._options["db"]  # a cluster has one alone, and its client knows no argument for it

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self._slot})"

    __json__ = __repr__

    def resolve(self) -> Address:
        """As :meth:`AddressResolver.resolve`. One node after the other is asked, until one knows who has the slot.

        If the time is over before that, those that were not asked are the first the next time.
        """
        nodes = self._nodes  # another thread may replace it meanwhile
        last_ask_at = time.monotonic() + self._timeout_seconds - NODE_TIMEOUT_SECONDS
        errors: list[tuple[str, RedisError]] = []
        for at, (host, port) in enumerate(nodes):
            if time.monotonic() > last_ask_at:
                self._nodes = [*nodes[at:], *nodes[:at]]
                late = f"no node of the cluster answers within {self._timeout_seconds:g} seconds"
                raise RedisConnectionError(f"{late}: {_joined(errors)}")
            try:
                return self._slot_owner(host, port)
            except RedisError as error:
                errors.append((f"{host}:{port}", error))
        raise self._reason([error for _, error in errors])

    def _slot_owner(self, host: str, port: int) -> Address:
        """Ask one node, and close the connection to it: the next time may be days away."""
        node = ClusterNode(host, port)  # type: ignore[no-untyped-call]
        try:
            manager = NodesManager([node], **self._options)
            owner = manager.get_node_from_slot(self._slot)
        except (RedisClusterException, OSError, IndexError) as error:  # the last one: no node has any slot
            raise self._as_of_a_server(error) from None
        except TypeError as error:  # redis-py takes a name for granted
            raise RedisConnectionError(_NAMELESS) from error
        finally:
            if node.redis_connection is not None:
                node.redis_connection.close()
        if owner.host in {None, "?"}:  # these would lead to this machine, or to no name
            raise RedisConnectionError(_NAMELESS)
        self._nodes = self._to_ask(manager)
        return owner.host, owner.port

    def _to_ask(self, manager: NodesManager) -> list[Address]:
        """Return the nodes to ask the next time, and those of REDIS_URL: all others may have new addresses then."""
        known = [(node.host, node.port) for node in manager.nodes_cache.values() if node.host not in {None, "?"}]
        random.shuffle(known)  # or all workers would ask the same one
        return [*known, *(node for node in self._startup_nodes if node not in known)]

    def _as_of_a_server(self, error: BaseException) -> RedisError:
        """Return redis-py's error as one of a server. It wraps what the node answered, sometimes twice."""
        if isinstance(error, SlotNotCoveredError | IndexError):
            return SlotNotServedError(f"no node of the cluster has slot {self._slot}")
        cause: BaseException | None = error
        while cause is not None:
            if isinstance(cause, AuthenticationError):
                return named_refusal(self._options["credential_provider"], cause)
            if isinstance(cause, NoPermissionError | RedisConnectionError | RedisTimeoutError):
                return cause
            if isinstance(cause, ResponseError):
                return ServerIsUnfitError(NOT_A_CLUSTER)
            cause = cause.__cause__ or cause.__context__
        return RedisConnectionError(str(error))

    def _reason(self, errors: Sequence[RedisError]) -> RedisError:
        """Return why nobody knows: who answers tells more than who cannot be reached."""
        for kind in (SlotNotServedError, AuthenticationError, NoPermissionError, ServerIsUnfitError):
            for error in errors:
                if isinstance(error, kind):
                    return error
        return errors[-1]


_NAMELESS = (
    "the cluster does not say where the node is: let cluster-preferred-endpoint-type be ip on all nodes, or hostname "
    "where each has a cluster-announce-hostname"
)
_TIMEOUTS = {"socket_timeout": NODE_TIMEOUT_SECONDS, "socket_connect_timeout": NODE_TIMEOUT_SECONDS}
