"""Errors of Redis for people: what the server refused and how to fix that, or that it could not be reached."""

from __future__ import annotations

import re

from redis.exceptions import (
    AuthenticationError,
    AuthenticationWrongNumberOfArgsError,
    BusyLoadingError,
    RedisError,
    ResponseError,
)
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import TimeoutError as RedisTimeoutError

from worker.broker.refusals import ServerIsOfNoUse

_TOO_MANY_CLIENTS = "max number of clients reached"
_SINGLE_SERVER = "It is a node of a cluster: let REDIS_URL name a server that holds all keys by itself."
_CREDENTIALS = (
    "Look at the user and the password in REDIS_URL; characters such as @ and / in them are written as %40 and %2F."
)
#: By the first word of the answer, as the server's documentation names it.
_FIX_BY_CODE = {
    "OOM": "Its memory is full: raise maxmemory, or make room. Workers and `lock-worker status` go on meanwhile.",
    "NOPERM": "Give the user in REDIS_URL that permission; docs/redis.md lists all that are needed.",
    "READONLY": "It is a replica: let REDIS_URL name the primary, or try again when a failover is over.",
    "MASTERDOWN": "It is a replica without its primary: let REDIS_URL name the primary, or try again when it is back.",
    "UNBLOCKED": "It has just become a replica: try again when the failover is over.",
    "LOADING": "It has just started: try again in a moment.",
    "BUSY": "A script of another client keeps it busy: try again, or end that script with SCRIPT KILL.",
    "NOREPLICAS": "It takes writes only while enough replicas are connected (min-replicas-to-write): look at them.",
    "MISCONF": "It cannot save its data and so takes no writes: look at its log and at its disk.",
    "WRONGTYPE": "Another program uses this key: give LOCK_QUEUE, RESULTS_CHANNEL or DEAD_STREAM another name.",
    "DENIED": "It runs in protected mode: give it a password, and write that into REDIS_URL.",
    "CLUSTERDOWN": _SINGLE_SERVER,
    "CROSSSLOT": _SINGLE_SERVER,
    "MOVED": _SINGLE_SERVER,
    "ASK": _SINGLE_SERVER,
    "TRYAGAIN": _SINGLE_SERVER,
}
#: The same for answers that begin with ERR or with nothing that tells more, by what stands in them.
_FIX_BY_WORDS = {
    _TOO_MANY_CLIENTS: "Raise its maxclients, or close connections that nobody uses (CLIENT LIST shows them).",
    "DB index is out of range": "Let REDIS_URL end in a database number that the server has, such as /0.",
    "unknown command": "Redis 7 or newer, or Valkey, is needed, with no command renamed.",
}
#: Answers that change by themselves, and connections: whoever can wait may try again.
_PASSING = frozenset({"MASTERDOWN", "UNBLOCKED", "READONLY", "LOADING", "BUSY", "CLUSTERDOWN", "TRYAGAIN"})
#: How redis-py names a command of a pipeline in front of the server's words.
_IN_A_PIPELINE = re.compile(r"Command # \d+ \((?P<command>.*)\) of pipeline caused error: (?P<words>.*)", re.DOTALL)


def is_refusal(error: RedisError) -> bool:
    """Whether the server answered and did nothing. If not, what was sent to it may have been done."""
    refusals = (ResponseError, BusyLoadingError, AuthenticationError, ServerIsOfNoUse)
    return isinstance(error, refusals) or _TOO_MANY_CLIENTS in str(error)


def is_passing(error: RedisError) -> bool:
    """Whether the same command may succeed later though nobody changes anything: an outage, or a failover."""
    if is_refusal(error):
        return _code(error) in _PASSING or _TOO_MANY_CLIENTS in str(error)
    return isinstance(error, (RedisConnectionError, RedisTimeoutError))


def described(error: RedisError) -> str:
    """What happened, to stand behind the server's address, and in a second line how to fix it."""
    if not is_refusal(error):
        return f": {error}\n{_fix_of_a_connection(error)}"
    command, words = "", str(error)
    named = _IN_A_PIPELINE.fullmatch(words)
    if named is not None:
        command, words = f" {named['command']}", named["words"]
    code = _code(error)
    if code not in {"", "ERR"} and not words.startswith(code):
        words = f"{code} {words}"
    fix = _fix_of(error, code, words)
    return f" refused{command}: {words}" + (f"\n{fix}" if fix else "")


def _code(error: RedisError) -> str:
    """The first word of the server's answer; redis-py takes it out of the text where it knows the error."""
    if error.status_code:
        return error.status_code
    words = str(error)
    named = _IN_A_PIPELINE.fullmatch(words)
    first = (named["words"] if named else words).partition(" ")[0]
    return first if first.isupper() else ""


def _fix_of(error: RedisError, code: str, words: str) -> str:
    if isinstance(error, (AuthenticationError, AuthenticationWrongNumberOfArgsError)):
        return _CREDENTIALS
    by_words = next((fix for part, fix in _FIX_BY_WORDS.items() if part in words), "")
    return _FIX_BY_CODE.get(code, by_words)


def _fix_of_a_connection(error: RedisError) -> str:
    if "CERTIFICATE_VERIFY_FAILED" in str(error):
        return "Let REDIS_CA_FILE name the authority of its certificate, and REDIS_URL a host that stands in it."
    if "SSL" in str(error):
        return "Look whether this port speaks TLS: rediss:// is for one that does, redis:// for one that does not."
    return "Look whether the server is up, and whether REDIS_URL names it."
