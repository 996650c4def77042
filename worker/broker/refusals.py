"""Classifies errors of Redis: is the connection usable, does waiting help, and what should an operator do.

One table serves the worker and the commands. A worker waits and goes on by itself, and an operator reads its log later;
a command has an operator in front of it. Where the two need different advice, a meaning has both.

An error is recognised by redis-py's class and by the server's first words, which are part of its protocol.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
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
    MovedError,
    NoPermissionError,
    OutOfMemoryError,
    ReadOnlyError,
    RedisError,
    ResponseError,
    TryAgainError,
)
from redis.exceptions import ConnectionError as RedisConnectionError

#: The oldest version: Redis 7 brought the script flags that let a full server drain.
OLDEST_MAJOR = 7

#: The server does not serve the keys, and another one may. ASK and TRYAGAIN come from the node that still serves them,
#: while they move: there the same command works later, or gets MOVED.
_OF_ANOTHER_NODE = (MovedError, ClusterCrossSlotError, ClusterDownError)
#: The first words of refusals that redis-py has no class for. A server that becomes a replica unblocks its clients.
_UNBLOCKED = "UNBLOCKED"
_UNUSABLE_CODES = (_UNBLOCKED, "NOREPLICAS", "MISCONF")


class NotConnectedError(RedisConnectionError):
    """There is no connection, so nothing was sent. ``__cause__`` has the reason."""


class PasswordFileError(RedisConnectionError):
    """There is no password to log in with, because the file of REDIS_PASSWORD_FILE cannot be used."""


class PasswordFileRefusedError(AuthenticationError):
    """The server does not accept the password in the file of REDIS_PASSWORD_FILE; a rotation may be under way."""


class UnusableServerError(RedisConnectionError):
    """The server refuses all writes or all commands. ``__cause__`` is its refusal, if there was one.

    redis-py, kombu and Celery treat this as a lost connection and connect anew; the address may lead elsewhere then.
    """


class ServerIsReadOnlyError(UnusableServerError):
    """The server is a replica: jobs wait until the address leads to a primary."""


class NoPrimaryError(UnusableServerError):
    """The sentinels name no primary, for example because a failover is under way."""


class SlotNotServedError(UnusableServerError):
    """No node of the cluster has the slot of the queue."""


@dataclass(frozen=True, slots=True)
class Unfit:
    """A problem that waiting does not fix, and advice; ``for_commands`` is the advice where a command hits it."""

    problem: str
    advice: str
    for_commands: str = field(default="", kw_only=True)


@dataclass(frozen=True, slots=True)
class Passing:
    """A problem that may pass, and advice if it does not; ``for_commands`` is the advice where a command hits it."""

    problem: str
    advice: str
    for_commands: str = field(default="", kw_only=True)


Meaning: TypeAlias = Unfit | Passing


class ServerIsUnfitError(UnusableServerError):
    """The address leads to a server that cannot be used, and waiting does not fix that."""

    def __init__(self, unfit: Unfit) -> None:
        super().__init__(unfit.problem)
        self.unfit = unfit


#: Errors of the search for the server; no server has refused a command.
NOT_FOUND = (ServerIsUnfitError, NoPrimaryError, SlotNotServedError)

_NOT_THE_COMMANDS = "Redis 7 or newer, or Valkey, is needed, with no command renamed."

_NAME_THE_CLUSTER = (
    "Let REDIS_URL start with redis+cluster:// and name nodes of the cluster, and give LOCK_QUEUE a hash tag such as "
    "{moderation}.lock; or let REDIS_URL name a single server."
)
#: A node of a cluster, found where REDIS_URL names a single server.
IS_A_CLUSTER = Unfit(
    "REDIS_URL names a single server, and there is a node of a Redis Cluster, which holds only some of the keys.",
    _NAME_THE_CLUSTER,
)
#: A single server, found where REDIS_URL names a cluster.
NOT_A_CLUSTER = Unfit(
    "REDIS_URL names a Redis Cluster, and there is a server that is no node of a cluster.",
    "Let REDIS_URL start with redis:// or rediss:// if there is a single server, or with redis+sentinel:// if the "
    "hosts are sentinels; else correct the hosts.",
)
_NO_CLUSTER_KEYS = Unfit(
    "The server, or a proxy before it, spreads keys over several servers (CROSSSLOT), and a job moves in one atomic "
    "step on one of them.",
    _NAME_THE_CLUSTER,
)
NO_SENTINELS = Unfit(
    "The hosts in REDIS_URL are no sentinels.",
    "Let REDIS_URL start with redis:// or rediss:// if there is a single server, or correct the hosts; the port of a "
    "sentinel is 26379 by default.",
)
WRONG_SENTINEL_PASSWORD = Unfit(
    "The sentinels do not accept the password, or do not permit SENTINEL MASTERS.",
    "Correct SENTINEL_PASSWORD; the password in REDIS_URL is that of the server behind them.",
)
_SLOT_MOVES = Passing(
    "The keys are at another node of the Redis Cluster, or are being moved there.",
    "Wait; if it does not end, look whether a move of slots was left half-way (redis-cli --cluster check).",
    for_commands="The keys are at another node of a Redis Cluster, or are being moved there: try again in a moment.",
)
_CLUSTER_DOWN = Passing(
    "The Redis Cluster does not serve the queue's keys: a node is down or a slot has none.",
    "Bring the node back, or let a replica take over; redis-cli --cluster check shows what is missing.",
)
_NO_PRIMARY = Passing(
    "The sentinels have no primary now.",
    "Wait until the failover is over; if it does not end, ask a sentinel why (SENTINEL MASTERS, SENTINEL CKQUORUM).",
    for_commands="Try again when the failover is over; if that takes long, ask a sentinel why (SENTINEL CKQUORUM).",
)
_NO_DATABASE = Unfit(
    "The server does not have the database that REDIS_URL names (a node of a Redis Cluster has database 0 alone).",
    "Use a database that it has (0 is always there), or raise `databases` on the server.",
    for_commands="Let REDIS_URL end in a database number that the server has, such as /0.",
)
_NO_SCRIPTS = Unfit(
    "The server, or a proxy before it, does not run Lua scripts (EVAL, EVALSHA), by which jobs move.",
    "Enable EVAL and EVALSHA, or let REDIS_URL lead to the server itself.",
    for_commands=_NOT_THE_COMMANDS,
)
_NO_SUCH_COMMAND = Unfit(
    "The server, or a proxy before it, does not know a command that is needed.",
    f"Let REDIS_URL lead to Redis {OLDEST_MAJOR} or newer, or Valkey, with no command renamed.",
    for_commands=_NOT_THE_COMMANDS,
)
_TOO_OLD = Unfit(
    f"The server does not understand scripts with flags: it is older than Redis {OLDEST_MAJOR}.",
    f"Upgrade it to Redis {OLDEST_MAJOR} or newer, or Valkey, or let REDIS_URL name another one.",
    for_commands=_NOT_THE_COMMANDS,
)
_WRONG_PASSWORD = Unfit(
    "Redis does not accept the user and password.",
    "Correct the user and password in REDIS_URL, or the server's user (ACL SETUSER).",
    for_commands="Look at the user and the password in REDIS_URL; characters such as @ and / in them are written as %40"
    " and %2F.",
)
_NO_PASSWORD = Passing(
    "The file that REDIS_PASSWORD_FILE names holds no password that can be used.",
    "Put the password alone into that file, readable for the worker's user; it is read again for each connection.",
)
_WRONG_PASSWORD_IN_FILE = Passing(
    "Redis does not accept the password in the file that REDIS_PASSWORD_FILE names.",
    "Put the password that is valid now into that file, which is read again for each connection, or give the server's"
    " user that password; look at the user in REDIS_URL too.",
)
_NO_PERMISSION = Unfit(
    "The server's access control list forbids the worker's user what it needs.",
    "Give the user the rights that docs/redis.md lists.",
    for_commands="Give the user in REDIS_URL that permission; docs/redis.md lists all that are needed.",
)
_PROTECTED = Unfit(
    "The server runs in protected mode: it takes no connections from other hosts.",
    "Give it a password, and write that into REDIS_URL.",
)
_WRONG_TYPE = Unfit(
    "A key holds another kind of value than it should: another program uses that name.",
    "Give LOCK_QUEUE, RESULTS_CHANNEL or DEAD_STREAM another name, or the other program's key.",
    for_commands="Another program uses this key: give LOCK_QUEUE, RESULTS_CHANNEL or DEAD_STREAM another name.",
)
_NO_REDIS = Unfit(
    "What answers at the address in REDIS_URL does not speak the protocol of Redis.",
    "Check host and port, and whether the server wants TLS (rediss://).",
)
_READ_ONLY = Passing(
    "The server is a replica.",
    "Wait until the address leads to a primary; if it does not, correct REDIS_URL or promote the server.",
    for_commands="It is a replica: let REDIS_URL name the primary, or try again when a failover is over.",
)
_NO_REPLICAS = Passing(
    "The server has fewer replicas than it wants.",
    "Bring its replicas back.",
    for_commands="It takes writes only while enough replicas are connected (min-replicas-to-write): look at them.",
)
_NO_DISK = Passing(
    "The server cannot write to its disk.",
    "Look at the server's log and its disk.",
    for_commands="It cannot save its data and so takes no writes: look at its log and at its disk.",
)
_FULL = Passing(
    "The server is full.",
    "Free memory or raise maxmemory.",
    for_commands="Its memory is full: raise maxmemory, or make room. Workers and `lock-worker status` go on meanwhile.",
)
_LOADING = Passing(
    "The server still loads its data.", "Wait.", for_commands="It has just started: try again in a moment."
)
_BUSY = Passing(
    "A script of another client keeps the server busy.",
    "Wait, or end that script with SCRIPT KILL.",
    for_commands="A script of another client keeps it busy: try again, or end that script with SCRIPT KILL.",
)
_MAX_CLIENTS = Passing(
    "The server has as many clients as it allows.",
    "Raise maxclients, or close idle clients.",
    for_commands="Raise its maxclients, or close connections that nobody uses (CLIENT LIST shows them).",
)

_TLS_EXPIRED = Passing(
    "The certificate of Redis has expired, or is not valid yet.",
    "Renew it on the server, and compare the server's clock with this machine's.",
)
_TLS_OTHER_NAME = Passing(
    "The certificate of Redis is for another name than the host in REDIS_URL.",
    "Let REDIS_URL name a host that stands in the certificate, or let the server have one for this host.",
)
_TLS_NOT_TRUSTED = Passing(
    "The certificate of Redis is of an authority that the worker does not trust.",
    "Let REDIS_CA_FILE name the certificate of that authority.",
)
_TLS_CLIENT_MISSING = Passing(
    "Redis asks for a client certificate, and the worker has none.",
    "Let REDIS_CERT_FILE and REDIS_KEY_FILE name one and its key.",
)
_TLS_CLIENT_EXPIRED = Passing(
    "Redis says that the worker's client certificate has expired.",
    "Put a new one and its key into the files of REDIS_CERT_FILE and REDIS_KEY_FILE. Each new connection reads them.",
)
_TLS_CLIENT_REFUSED = Passing(
    "Redis does not accept the worker's client certificate.",
    "Let REDIS_CERT_FILE name one of an authority that the server trusts (its tls-ca-cert-file).",
)
_TLS_CLOSED = Passing(
    "Redis closed the TLS connection without a reason.",
    "Look whether it asks for a client certificate (REDIS_CERT_FILE and REDIS_KEY_FILE), and whether the worker's is"
    " valid there and not expired; the server's log tells.",
)
_TLS_KEY = Passing(
    "The private key in REDIS_KEY_FILE is not that of the certificate in REDIS_CERT_FILE, or cannot be read.",
    "Replace both files together: a certificate and its key without a password.",
)
_TLS_FILE = Passing(
    "A file that REDIS_CA_FILE, REDIS_CERT_FILE or REDIS_KEY_FILE names is gone.",
    "Bring it back; it is read again for each connection.",
)
_NOT_TLS = Passing(
    "What answers at the address in REDIS_URL does not speak TLS.",
    "Look whether this port speaks TLS: rediss:// is for one that does, redis:// for one that does not.",
)

_BY_CLASS: tuple[tuple[type[BaseException] | tuple[type[BaseException], ...], Meaning], ...] = (
    (PasswordFileError, _NO_PASSWORD),
    (PasswordFileRefusedError, _WRONG_PASSWORD_IN_FILE),
    ((AuthenticationError, AuthenticationWrongNumberOfArgsError), _WRONG_PASSWORD),
    (NoPermissionError, _NO_PERMISSION),
    (BusyLoadingError, _LOADING),
    (OutOfMemoryError, _FULL),
    (InvalidResponse, _NO_REDIS),
    (ClusterCrossSlotError, _NO_CLUSTER_KEYS),
    ((ClusterDownError, SlotNotServedError), _CLUSTER_DOWN),
    ((AskError, TryAgainError), _SLOT_MOVES),
    (NoPrimaryError, _NO_PRIMARY),
)
#: By the first word of the answer, for errors that redis-py has no class for.
_BY_CODE: dict[str, Meaning] = {
    "NOREPLICAS": _NO_REPLICAS,
    "MISCONF": _NO_DISK,
    "BUSY": _BUSY,
    "WRONGTYPE": _WRONG_TYPE,
    "DENIED": _PROTECTED,
}
#: By words that all occur in the error, in upper or lower case; of servers, of proxies, and of OpenSSL.
_BY_WORDS: tuple[tuple[tuple[str, ...], Meaning], ...] = (
    (("cluster mode",), IS_A_CLUSTER),
    (("db index",), _NO_DATABASE),
    (("unknown command", "eval"), _NO_SCRIPTS),
    (("unsupported command", "eval"), _NO_SCRIPTS),
    (("unknown command", "select"), _NO_DATABASE),
    (("unsupported command", "select"), _NO_DATABASE),
    (("unknown command",), _NO_SUCH_COMMAND),
    (("acl failure in script",), _NO_PERMISSION),
    (("user executing the script can",), _NO_PERMISSION),
    (("script", "disabled"), _NO_SCRIPTS),
    (("script", "not supported"), _NO_SCRIPTS),
    (("compiling script",), _TOO_OLD),
    (("max number of clients",), _MAX_CLIENTS),
    (("protocol error",), _NO_REDIS),
    (("certificate_verify_failed", "expired"), _TLS_EXPIRED),
    (("certificate_verify_failed", "not yet valid"), _TLS_EXPIRED),
    (("certificate_verify_failed", "mismatch"), _TLS_OTHER_NAME),
    (("certificate_verify_failed",), _TLS_NOT_TRUSTED),
    (("alert certificate required",), _TLS_CLIENT_MISSING),
    (("alert certificate expired",), _TLS_CLIENT_EXPIRED),
    (("alert unknown ca",), _TLS_CLIENT_REFUSED),
    (("alert bad certificate",), _TLS_CLIENT_REFUSED),
    (("alert certificate unknown",), _TLS_CLIENT_REFUSED),
    (("alert handshake failure",), _TLS_CLIENT_REFUSED),
    (("eof occurred in violation",), _TLS_CLOSED),
    (("key values mismatch",), _TLS_KEY),
    (("[ssl]",), _TLS_KEY),
    (("wrong version number",), _NOT_TLS),
    (("connecting to", "no such file"), _TLS_FILE),
)
#: How redis-py puts the command of a pipeline before the server's words.
_IN_A_PIPELINE = re.compile(r"Command # \d+ \((?P<command>.*)\) of pipeline caused error: (?P<words>.*)", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Answer:
    """A server's error answer.

    Attributes:
        command: the command of a pipeline that failed; empty outside a pipeline.
        code: the error code, which is the answer's first word; empty if it has none.
        words: the rest; the whole answer if redis-py does not know the code.
    """

    command: str
    code: str
    words: str


def answer_in(error: RedisError) -> Answer:
    """Return the parts of an error. redis-py removes the code from the words if it knows it."""
    named = _IN_A_PIPELINE.fullmatch(str(error))
    command, words = (named["command"], named["words"]) if named else ("", str(error))
    first = words.partition(" ")[0]
    return Answer(command, error.status_code or (first if first.isupper() else ""), words)


def connection_is_useless(error: ResponseError) -> bool:
    """Return True if a refusal is about the server and not the command: a new connection may reach a better one.

    A primary that becomes a replica keeps its connections open, even after its address has moved to the new primary. So
    does one that lost its replicas (NOREPLICAS) or its disk (MISCONF), upon which an operator may promote a replica.
    Every part of the worker closes a connection that gets such a refusal.
    """
    return isinstance(error, (ReadOnlyError, *_OF_ANOTHER_NODE)) or str(error).startswith(_UNUSABLE_CODES)


def unknown_master(master: str) -> Unfit:
    """Return that no sentinel knows the primary by its name."""
    return Unfit(
        f"No sentinel in REDIS_URL knows a primary by the name {master}.",
        "Correct the name after the sentinels in REDIS_URL; SENTINEL MASTERS at a sentinel lists the names.",
    )


def as_lost_connection(error: ResponseError) -> UnusableServerError:
    """Return such a refusal as a lost connection, for code that connects anew only after a loss."""
    kind = ServerIsReadOnlyError if is_demoted(error) else UnusableServerError
    lost = kind(str(error))
    lost.status_code = error.status_code
    lost.__cause__ = error
    return lost


def may_have_been_run(error: BaseException) -> bool:
    """Return True if the server may have run the command: it was sent, and the answer was lost."""
    return not (isinstance(error, NotConnectedError) or was_refused(error))


def was_refused(error: BaseException) -> bool:
    """Return True if the server answered that it did nothing."""
    refusals = (ResponseError, BusyLoadingError, AuthenticationError, UnusableServerError)
    return isinstance(error, refusals) or meaning(error) is _MAX_CLIENTS


def is_demoted(error: BaseException) -> bool:
    """Return True if the error says that the server is a replica."""
    return isinstance(error, ReadOnlyError | MasterDownError | ServerIsReadOnlyError) or str(error).startswith(
        _UNBLOCKED
    )


def meaning(error: BaseException) -> Meaning | None:
    """Return what an error means and what to do; None if only the error's own words are known."""
    says_no_more = isinstance(error, NotConnectedError | UnusableServerError) or not isinstance(error, RedisError)
    if error.__cause__ is not None and says_no_more:
        error = error.__cause__
    if isinstance(error, ServerIsUnfitError):
        return error.unfit
    if is_demoted(error):
        return _READ_ONLY
    for kind, by_class in _BY_CLASS:
        if isinstance(error, kind):
            return by_class
    if not isinstance(error, RedisError):
        return None
    answer = answer_in(error)
    if answer.code in _BY_CODE:
        return _BY_CODE[answer.code]
    words = answer.words.lower()
    return next((by_words for needed, by_words in _BY_WORDS if all(word in words for word in needed)), None)
