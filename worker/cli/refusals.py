"""Describes errors of Redis for people: what the server refused and the fix, or that it could not be reached."""

from __future__ import annotations

from typing import TYPE_CHECKING

from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import TimeoutError as RedisTimeoutError

from worker.broker.redis_problems import Passing
from worker.broker.refusals import NOT_FOUND, answer_in, meaning, was_refused

if TYPE_CHECKING:
    from redis.exceptions import RedisError


def is_passing(error: RedisError) -> bool:
    """Return True if the same command may succeed later by itself: after an outage or a failover."""
    if was_refused(error):
        return isinstance(meaning(error), Passing)
    return isinstance(error, (RedisConnectionError, RedisTimeoutError))


def described(error: RedisError) -> str:
    """Return the error, to follow the server's address, and in a second line how to fix it."""
    if not was_refused(error):
        return f": {error}\n{_fix_of_a_connection(error)}"
    known = meaning(error)
    fix = "" if known is None else f"\n{known.for_commands or known.advice}"
    if isinstance(error, NOT_FOUND):
        return f": {error}{fix}"
    answer = answer_in(error)
    command = f" {answer.command}" if answer.command else ""
    words = answer.words
    if answer.code not in {"", "ERR"} and not words.startswith(answer.code):
        words = f"{answer.code} {words}"
    return f" refused{command}: {words}{fix}"


def _fix_of_a_connection(error: RedisError) -> str:
    known = meaning(error)
    if known is not None:
        return known.for_commands or known.advice
    if isinstance(error, RedisTimeoutError):
        return "Nothing answers there in time: look whether the server is stopped or busy, and at the network to it."
    return "Look whether the server is up, and whether REDIS_URL names it."
