"""What the words of a server, or of a proxy before it, mean: waiting helps or not, and what is to be done."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from redis._parsers.base import BaseParser
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import InvalidResponse, ResponseError

from worker.broker.redis_problems import Passing, Unfit
from worker.broker.refusals import (
    NotConnectedError,
    ServerIsReadOnlyError,
    answer_in,
    as_lost_connection,
    connection_is_useless,
    is_demoted,
    may_have_been_run,
    meaning,
)

if TYPE_CHECKING:
    from redis import Redis


def said(words: str) -> Exception:
    """The error that redis-py makes of what a server says."""
    return BaseParser.parse_error(words)  # type: ignore[no-any-return, no-untyped-call]


@pytest.mark.parametrize(
    ("words", "problem"),
    [
        ("ERR SELECT is not allowed in cluster mode", "Redis Cluster"),
        ("CROSSSLOT Keys in request don't hash to the same slot", "CROSSSLOT"),
        ("ERR DB index is out of range", "does not have the database"),
        ("ERR unknown command 'EVAL', with args beginning with: ", "Lua scripts"),
        ("ERR unknown command `EVALSHA`, with args beginning with: ", "Lua scripts"),
        ("ERR unsupported command 'eval'", "Lua scripts"),
        ("ERR Lua scripts are disabled on this server", "Lua scripts"),
        ("ERR Error compiling script (new function): user_script:1: unexpected symbol near '#'", "older than Redis 7"),
        ("WRONGPASS invalid username-password pair or user is disabled.", "user and password"),
        ("NOAUTH Authentication required.", "user and password"),
        ("ERR invalid password", "user and password"),
        ("ERR Protocol error: unauthenticated multibulk length", "user and password"),
        ("ERR wrong number of arguments for 'auth' command", "user and password"),
        ("NOPERM this user has no permissions to run the 'eval' command", "access control list"),
        ("ERR unknown command 'XINFO', with args beginning with: ", "does not know a command"),
        ("WRONGTYPE Operation against a key holding the wrong kind of value", "another program"),
        ("DENIED Redis is running in protected mode because protected mode is enabled", "protected mode"),
    ],
)
def test_what_waiting_never_mends_is_reported_with_what_to_do(words: str, problem: str) -> None:
    found = meaning(said(words))

    assert isinstance(found, Unfit)
    assert problem in found.problem
    assert found.advice


def test_of_several_commands_in_one_write_the_refused_one_is_known(redis_client: Redis) -> None:
    redis_client.set("a list", "no list")
    with redis_client.pipeline(transaction=False) as at_once:
        at_once.get("unknown command")
        at_once.lpush("a list", "a")
        with pytest.raises(ResponseError) as refused:
            at_once.execute()

    answer = answer_in(refused.value)

    assert (answer.command, answer.code) == ("LPUSH a list a", "WRONGTYPE")
    assert answer.words.endswith("Operation against a key holding the wrong kind of value")
    assert meaning(refused.value) == meaning(said("WRONGTYPE no"))


def test_what_is_no_redis_is_reported() -> None:
    assert isinstance(meaning(InvalidResponse('Protocol error, got "H" as reply type byte')), Unfit)


@pytest.mark.parametrize(
    "words",
    [
        "READONLY You can't write against a read only replica.",
        "MASTERDOWN Link with MASTER is down and replica-serve-stale-data is set to 'no'.",
        "UNBLOCKED force unblock from blocking operation, instance state changed (master -> replica?)",
        "NOREPLICAS Not enough good replicas to write.",
        "MISCONF Errors writing to the AOF file: No space left on device",
        "LOADING Redis is loading the dataset in memory",
        "MOVED 7365 127.0.0.1:6380",
        "ASK 7365 127.0.0.1:6380",
        "TRYAGAIN Multiple keys request during rehashing of slot",
        "CLUSTERDOWN Hash slot not served",
        "BUSY Redis is busy running a script. You can only call SCRIPT KILL or SHUTDOWN NOSAVE.",
        "OOM command not allowed when used memory > 'maxmemory'.",
        "ERR max number of clients reached",
    ],
)
def test_what_may_pass_is_waited_for_and_told_with_what_to_do(words: str) -> None:
    found = meaning(said(words))

    assert isinstance(found, Passing)
    assert found.advice


@pytest.mark.parametrize(
    "error",
    [
        said("ERR user_script:7: something of our own"),
        RedisConnectionError("Connection closed by server."),
        OSError("reset"),
        ValueError("a bug"),
    ],
    ids=str,
)
def test_of_anything_else_the_errors_own_words_are_all_that_is_known(error: Exception) -> None:
    assert meaning(error) is None


def test_why_there_is_no_connection_is_what_counts() -> None:
    error = NotConnectedError("no connection")
    error.__cause__ = said("WRONGPASS no")

    assert meaning(error) == meaning(said("WRONGPASS no"))


@pytest.mark.parametrize(
    ("words", "is_useless", "is_of_a_replica"),
    [
        ("READONLY You can't write against a read only replica.", True, True),
        ("MASTERDOWN Link with MASTER is down", True, True),
        ("UNBLOCKED force unblock from blocking operation", True, True),
        ("NOREPLICAS Not enough good replicas to write.", True, False),
        ("MISCONF Errors writing to the AOF file", True, False),
        ("MOVED 7365 127.0.0.1:6380", True, False),
        ("CROSSSLOT Keys in request don't hash to the same slot", True, False),
        ("CLUSTERDOWN Hash slot not served", True, False),
        ("ASK 7365 127.0.0.1:6380", False, False),
        ("TRYAGAIN Multiple keys request during rehashing of slot", False, False),
        ("WRONGTYPE Operation against a key holding the wrong kind of value", False, False),
        ("NOSCRIPT No matching script.", False, False),
        ("NOPERM no", False, False),
        ("OOM no", False, False),
        ("ERR unknown command 'NONSENSE'", False, False),
    ],
)
def test_a_refusal_of_the_whole_server_makes_its_connection_useless(
    words: str, *, is_useless: bool, is_of_a_replica: bool
) -> None:
    error = said(words)
    assert isinstance(error, ResponseError)

    assert connection_is_useless(error) is is_useless
    assert is_demoted(error) is is_of_a_replica


def test_only_a_command_that_was_sent_and_not_refused_may_have_been_run() -> None:
    assert may_have_been_run(RedisConnectionError("lost"))
    assert may_have_been_run(OSError("reset"))
    assert may_have_been_run(TimeoutError())
    assert not may_have_been_run(said("LOADING no"))
    assert not may_have_been_run(RedisConnectionError("max number of clients reached"))
    assert not may_have_been_run(NotConnectedError("refused"))
    assert not may_have_been_run(said("READONLY no"))


@pytest.mark.parametrize(
    "words", ["READONLY no", "UNBLOCKED no", "NOREPLICAS no", "MISCONF no", "MOVED 7365 127.0.0.1:6380", "CROSSSLOT no"]
)
def test_to_celery_a_refusal_of_the_whole_server_is_a_lost_connection_of_the_same_meaning(words: str) -> None:
    refusal: Any = said(words)

    lost = as_lost_connection(refusal)

    assert isinstance(lost, RedisConnectionError)
    assert meaning(lost) == meaning(refusal) is not None
    assert is_demoted(lost) == is_demoted(refusal) == isinstance(lost, ServerIsReadOnlyError)
    assert not may_have_been_run(lost)
