"""What an error of Redis means for a worker: whether its connection is of any use, whether waiting helps, what to do.

Errors are told apart by redis-py's classes and by the first words of the server, which are part of its protocol.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

from redis.exceptions import (
    AskError,
    AuthenticationError,
    AuthenticationWrongNumberOfArgsError,
    BusyLoadingError,
    ClusterCrossSlotError,
    ClusterDownError,
    InvalidResponse,
    MasterDownError,
    NoPermissionError,
    OutOfMemoryError,
    ReadOnlyError,
    RedisError,
    ResponseError,
    TryAgainError,
)
from redis.exceptions import ConnectionError as RedisConnectionError

#: The oldest server: Redis 7 brought the flags of scripts that let a full server drain.
OLDEST_MAJOR = 7

_OF_A_CLUSTER = (AskError, ClusterCrossSlotError, ClusterDownError, TryAgainError)
#: How refusals begin, for which redis-py has no class. A server unblocks its waiting clients when it becomes a replica.
_UNBLOCKED = "UNBLOCKED"
_OF_NO_USE_NOW = (_UNBLOCKED, "NOREPLICAS", "MISCONF")


class NotConnectedError(RedisConnectionError):
    """There is no connection: nothing was sent. ``__cause__`` tells why."""


class ServerIsOfNoUse(RedisConnectionError):  # noqa: N818 - it names what is so
    """The server refuses all writes, or whatever is asked of it. ``__cause__`` tells how it said so, if it did.

    To redis-py, kombu and Celery this is a lost connection: they connect anew, and the address may lead elsewhere then.
    """


class ServerIsReadOnly(ServerIsOfNoUse):
    """The server is a replica: jobs wait until the address leads to a primary."""


@dataclass(frozen=True, slots=True)
class Unfit:
    """Waiting does not mend it: what is wrong, and what to do."""

    problem: str
    advice: str


@dataclass(frozen=True, slots=True)
class Passing:
    """It may pass by itself: what is wrong, and what to do if it does not."""

    problem: str
    advice: str


Meaning: TypeAlias = Unfit | Passing


class ServerIsUnfitError(ServerIsOfNoUse):
    """The address leads to a server that is of no use, and waiting does not mend that."""

    def __init__(self, unfit: Unfit) -> None:
        super().__init__(unfit.problem)
        self.unfit = unfit


_CLUSTER = Unfit(
    "REDIS_URL leads to a Redis Cluster, and lock-worker needs one server that holds all keys (cluster support is later"
    " work).",
    "Let REDIS_URL name a single server; it may have replicas.",
)
_NO_CLUSTER_KEYS = Unfit(
    "The server, or a proxy before it, spreads keys over several servers (CROSSSLOT). A job moves in one atomic step,"
    " so lock-worker needs one server that holds all keys (cluster support is later work).",
    "Let REDIS_URL name a single server; it may have replicas.",
)
_NO_DATABASE = Unfit(
    "The server does not have the database that REDIS_URL names (a node of a Redis Cluster has database 0 alone).",
    "Use a database that it has (0 is always there), or raise `databases` on the server.",
)
_NO_SCRIPTS = Unfit(
    "The server, or a proxy before it, does not run Lua scripts (EVAL, EVALSHA), by which jobs move.",
    "Enable EVAL and EVALSHA, or let REDIS_URL lead to the server itself.",
)
_TOO_OLD = Unfit(
    f"The server does not understand scripts with flags: it is older than Redis {OLDEST_MAJOR}.",
    f"Upgrade it to Redis {OLDEST_MAJOR} or newer, or Valkey, or let REDIS_URL name another one.",
)
_WRONG_PASSWORD = Unfit(
    "Redis does not accept the user and password.",
    "Correct the user and password in REDIS_URL, or the server's user (ACL SETUSER).",
)
_NO_PERMISSION = Unfit(
    "The server's access control list forbids the worker's user what it needs.",
    "Give the user the rights that docs/redis.md lists.",
)
_NO_REDIS = Unfit(
    "What answers at the address in REDIS_URL does not speak the protocol of Redis.",
    "Check host and port, and whether the server wants TLS (rediss://).",
)
_READ_ONLY = Passing(
    "The server is a replica.",
    "Wait until the address leads to a primary; if it does not, correct REDIS_URL or promote the server.",
)
_NO_REPLICAS = Passing("The server has fewer replicas than it wants.", "Bring its replicas back.")
_NO_DISK = Passing("The server cannot write to its disk.", "Look at the server's log and its disk.")
_FULL = Passing("The server is full.", "Free memory or raise maxmemory.")
_LOADING = Passing("The server still loads its data.", "Wait.")
_MAX_CLIENTS = Passing("The server has as many clients as it allows.", "Raise maxclients, or close idle clients.")

_BY_CLASS: tuple[tuple[type[BaseException] | tuple[type[BaseException], ...], Meaning], ...] = (
    ((AuthenticationError, AuthenticationWrongNumberOfArgsError), _WRONG_PASSWORD),
    (NoPermissionError, _NO_PERMISSION),
    (BusyLoadingError, _LOADING),
    (OutOfMemoryError, _FULL),
    (InvalidResponse, _NO_REDIS),
    (ClusterCrossSlotError, _NO_CLUSTER_KEYS),
    (_OF_A_CLUSTER, _CLUSTER),
)
#: In any letters, all of the words; of servers, and of proxies that stand in for one.
_BY_WORDS: tuple[tuple[tuple[str, ...], Meaning], ...] = (
    (("cluster mode",), _CLUSTER),
    (("db index",), _NO_DATABASE),
    (("unknown command", "eval"), _NO_SCRIPTS),
    (("unsupported command", "eval"), _NO_SCRIPTS),
    (("unknown command", "select"), _NO_DATABASE),
    (("unsupported command", "select"), _NO_DATABASE),
    (("script", "disabled"), _NO_SCRIPTS),
    (("script", "not supported"), _NO_SCRIPTS),
    (("compiling script",), _TOO_OLD),
    (("noreplicas",), _NO_REPLICAS),
    (("misconf",), _NO_DISK),
    (("max number of clients",), _MAX_CLIENTS),
    (("protocol error",), _NO_REDIS),
)


def connection_is_useless(error: ResponseError) -> bool:
    """Whether a refusal concerns the server and not the command: another connection may lead to a better one.

    A primary that becomes a replica keeps its connections open, also when its address leads to the new primary. So does
    one that was cut off from its replicas (NOREPLICAS) or its disk (MISCONF), and somebody promotes a replica then.
    Each connection that hears such a refusal is closed, whichever part of the worker it belongs to.
    """
    return isinstance(error, (ReadOnlyError, *_OF_A_CLUSTER)) or str(error).startswith(_OF_NO_USE_NOW)


def as_lost_connection(error: ResponseError) -> ServerIsOfNoUse:
    """A refusal after which the connection is of no use, for those who make a connection anew only if it is lost."""
    kind = ServerIsReadOnly if is_demoted(error) else ServerIsOfNoUse
    lost = kind(str(error))
    lost.status_code = error.status_code
    lost.__cause__ = error
    return lost


def may_have_been_run(error: BaseException) -> bool:
    """Whether the server may have run the command that ended in this error: it was sent, and the answer was lost."""
    return not isinstance(error, NotConnectedError | ResponseError | ServerIsOfNoUse)


def is_demoted(error: BaseException) -> bool:
    """Whether a server says by this that it is not the primary (any more)."""
    return isinstance(error, ReadOnlyError | MasterDownError | ServerIsReadOnly) or str(error).startswith(_UNBLOCKED)


def meaning(error: BaseException) -> Meaning | None:
    """What an error means, in words for people; None where the error's own words are all that is known."""
    tells_no_more = isinstance(error, NotConnectedError | ServerIsOfNoUse) or not isinstance(error, RedisError)
    if error.__cause__ is not None and tells_no_more:
        error = error.__cause__
    if isinstance(error, ServerIsUnfitError):
        return error.unfit
    if is_demoted(error):
        return _READ_ONLY
    for kind, found in _BY_CLASS:
        if isinstance(error, kind):
            return found
    words = str(error)
    if isinstance(error, RedisError):
        for needed, found in _BY_WORDS:
            if all(word in words.lower() for word in needed):
                return found
    return None
