"""What the server at REDIS_URL has to be like for the worker's promises to hold, and what it is not.

It is asked when Celery's side connects, with one plain ``INFO`` and one script that does nothing. ``CONFIG GET`` would
tell more (which snapshots are taken), but managed services forbid it. A server whose options are changed while its
connections hold is not noticed.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

from redis.exceptions import ResponseError

from worker.broker.refusals import OLDEST_MAJOR, ServerIsReadOnlyError, Unfit, meaning

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from redis import Redis

#: Does nothing, and asks the server for all that the moves need before they begin.
_PROBE = "#!lua flags=allow-oom\nreturn 1"
#: Valkey tells a `redis_version` of its own, 7.2.4.
_TOLD = ("redis_version", "maxmemory_policy", "aof_enabled")


@dataclass(frozen=True, slots=True)
class Risk:
    """The worker may start, and whoever runs it should know what can be lost, and the mend."""

    problem: str
    advice: str


@dataclass(frozen=True, slots=True)
class Unknown:
    """The server does not tell: why not, and what to look at instead."""

    problem: str
    advice: str


Finding: TypeAlias = Unfit | Risk | Unknown

_LOOK_YOURSELF = "see yourself that its version is 7 or newer, maxmemory-policy is noeviction and appendonly is yes"


def look(client: Redis, keys: Sequence[str], *, allow_eviction: bool) -> list[Finding]:
    """Ask a server, and judge what it tells.

    Args:
        client: a client of the server.
        keys: keys that one script must be able to use together.
        allow_eviction: whether a server may be one that throws keys away when it is full.

    Returns:
        What was found.

    Raises:
        ServerIsReadOnly: it is a replica, and so not the one to be judged.
        RedisError: it does not answer now, or it refuses for a reason that may pass.
    """
    try:
        info = client.info()
    except ResponseError as error:  # the access control list forbids it, or somebody renamed the command
        unknown = Unknown(f"Redis does not let the worker look at it: {error}", f"Allow INFO, or {_LOOK_YOURSELF}.")
        return [unknown, *_scripts(client, keys)]
    if info.get("role") in {"slave", "replica"}:
        raise ServerIsReadOnlyError("You can't write against a read only replica.")  # as it would say itself
    found = findings(info, allow_eviction=allow_eviction)
    # One that is unfit by what it tells would only say so again.
    return found if any(isinstance(finding, Unfit) for finding in found) else [*found, *_scripts(client, keys)]


def _scripts(client: Redis, keys: Sequence[str]) -> Iterator[Finding]:
    """Run a script as the moves are run; it uses nothing but their flags and keys."""
    try:
        client.eval(_PROBE, len(keys), *keys)
    except ResponseError as error:
        unfit = meaning(error)
        if not isinstance(unfit, Unfit):
            raise
        yield unfit


def findings(info: Mapping[str, Any], *, allow_eviction: bool) -> list[Finding]:
    """Judge the answer to ``INFO``; nothing found: all is as it should be."""
    untold = [name for name in _TOLD if name not in info]
    found: list[Finding] = [*_kind(info), *_eviction(info, allow_eviction=allow_eviction), *_persistence(info)]
    if untold:
        found.append(Unknown(f"Redis does not tell its {', '.join(untold)}.", f"Please {_LOOK_YOURSELF}."))
    return found


def _kind(info: Mapping[str, Any]) -> Iterator[Finding]:
    version = str(info.get("redis_version", OLDEST_MAJOR))
    major = version.partition(".")[0]
    if major.isdecimal() and int(major) < OLDEST_MAJOR:
        yield Unfit(
            f"This is Redis {version}, and lock-worker needs Redis {OLDEST_MAJOR} or newer, or Valkey.",
            "Upgrade the server, or let REDIS_URL name another one.",
        )
    mode = info.get("redis_mode") or info.get("server_mode") or "standalone"  # the second is Valkey's word
    if mode != "standalone":
        yield Unfit(
            f"This server runs in {mode} mode, and lock-worker needs one that holds all keys by itself.",
            "Let REDIS_URL name a single server; it may have replicas.",
        )


def _eviction(info: Mapping[str, Any], *, allow_eviction: bool) -> Iterator[Finding]:
    policy = str(info.get("maxmemory_policy", "noeviction"))
    if policy == "noeviction":
        return
    # An error without a `maxmemory` too: who sets the limit later does not think of the policy.
    lost = "the ids of ended jobs, so that copies of them run" if policy.startswith("volatile-") else "jobs and results"
    problem = f"The maxmemory-policy of Redis is {policy}: when its memory is full, it throws away {lost}."
    mend = "Set maxmemory-policy to noeviction"
    if allow_eviction:
        yield Risk(problem, f"{mend}.")
    else:
        yield Unfit(problem, f"{mend}, or REDIS_ALLOW_EVICTION to true to run with that risk.")


def _persistence(info: Mapping[str, Any]) -> Iterator[Finding]:
    if not info.get("aof_enabled", True):
        yield Risk(
            "Redis writes no append-only file: after a crash it has forgotten what came since its last snapshot, or "
            "everything if it takes none.",
            "Set appendonly to yes.",
        )
