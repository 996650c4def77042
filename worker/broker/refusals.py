"""Classifies errors of Redis: is the connection usable, does waiting help, and what should an operator do.

An error is recognised by redis-py's class and by the server's first words, which are part of its protocol.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

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

from worker.broker import redis_problems

if TYPE_CHECKING:
    from worker.broker.redis_problems import Meaning, Unfit

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


class ServerIsUnfitError(UnusableServerError):
    """The address leads to a server that cannot be used, and waiting does not fix that."""

    def __init__(self, unfit: Unfit) -> None:
        super().__init__(unfit.problem)
        self.unfit = unfit


#: Errors of an address that could not be resolved; no server has refused a command.
NOT_FOUND = (ServerIsUnfitError, NoPrimaryError, SlotNotServedError)

_BY_CLASS: tuple[tuple[type[BaseException] | tuple[type[BaseException], ...], Meaning], ...] = (
    (PasswordFileError, redis_problems.NO_PASSWORD),
    (PasswordFileRefusedError, redis_problems.WRONG_PASSWORD_IN_FILE),
    ((AuthenticationError, AuthenticationWrongNumberOfArgsError), redis_problems.WRONG_PASSWORD),
    (NoPermissionError, redis_problems.NO_PERMISSION),
    (BusyLoadingError, redis_problems.LOADING),
    (OutOfMemoryError, redis_problems.FULL),
    (InvalidResponse, redis_problems.NO_REDIS),
    (ClusterCrossSlotError, redis_problems.NO_CLUSTER_KEYS),
    ((ClusterDownError, SlotNotServedError), redis_problems.CLUSTER_DOWN),
    ((AskError, TryAgainError), redis_problems.SLOT_MOVES),
    (NoPrimaryError, redis_problems.NO_PRIMARY),
)
#: By the first word of the answer, for errors that redis-py has no class for.
_BY_CODE: dict[str, Meaning] = {
    "NOREPLICAS": redis_problems.NO_REPLICAS,
    "MISCONF": redis_problems.NO_DISK,
    "BUSY": redis_problems.BUSY,
    "WRONGTYPE": redis_problems.WRONG_TYPE,
    "DENIED": redis_problems.PROTECTED,
}
#: By words that all occur in the error, in upper or lower case; of servers, of proxies, and of OpenSSL.
_BY_WORDS: tuple[tuple[tuple[str, ...], Meaning], ...] = (
    (("cluster mode",), redis_problems.IS_A_CLUSTER),
    (("db index",), redis_problems.NO_DATABASE),
    (("unknown command", "eval"), redis_problems.NO_SCRIPTS),
    (("unsupported command", "eval"), redis_problems.NO_SCRIPTS),
    (("unknown command", "select"), redis_problems.NO_DATABASE),
    (("unsupported command", "select"), redis_problems.NO_DATABASE),
    (("unknown command",), redis_problems.NO_SUCH_COMMAND),
    (("acl failure in script",), redis_problems.NO_PERMISSION),
    (("user executing the script can",), redis_problems.NO_PERMISSION),
    (("script", "disabled"), redis_problems.NO_SCRIPTS),
    (("script", "not supported"), redis_problems.NO_SCRIPTS),
    (("compiling script",), redis_problems.TOO_OLD),
    (("max number of clients",), redis_problems.MAX_CLIENTS),
    (("protocol error", "unauthenticated"), redis_problems.WRONG_PASSWORD),
    (("protocol error",), redis_problems.NO_REDIS),
    (("certificate_verify_failed", "expired"), redis_problems.TLS_EXPIRED),
    (("certificate_verify_failed", "not yet valid"), redis_problems.TLS_EXPIRED),
    (("certificate_verify_failed", "mismatch"), redis_problems.TLS_OTHER_NAME),
    (("certificate_verify_failed",), redis_problems.TLS_NOT_TRUSTED),
    (("alert certificate required",), redis_problems.TLS_CLIENT_MISSING),
    (("alert certificate expired",), redis_problems.TLS_CLIENT_EXPIRED),
    (("alert unknown ca",), redis_problems.TLS_CLIENT_REFUSED),
    (("alert bad certificate",), redis_problems.TLS_CLIENT_REFUSED),
    (("alert certificate unknown",), redis_problems.TLS_CLIENT_REFUSED),
    (("alert handshake failure",), redis_problems.TLS_CLIENT_REFUSED),
    (("eof occurred in violation",), redis_problems.TLS_CLOSED),
    (("key values mismatch",), redis_problems.TLS_KEY),
    (("[ssl]",), redis_problems.TLS_KEY),
    (("wrong version number",), redis_problems.NOT_TLS),
    (("connecting to", "no such file"), redis_problems.TLS_FILE),
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
    return isinstance(error, refusals) or meaning(error) is redis_problems.MAX_CLIENTS


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
        return redis_problems.READ_ONLY
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
