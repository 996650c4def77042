"""Checks that the server at REDIS_URL has the properties that the worker's promises need.

Celery's consumer checks when it connects, with one plain ``INFO`` and one script that does nothing. ``CONFIG GET``
would tell more (such as the snapshots), but managed services forbid it. The check does not notice options that change
while the connections stay open.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

from redis.exceptions import ResponseError

from worker.broker.redis_problems import IS_A_CLUSTER, NOT_A_CLUSTER, OLDEST_MAJOR, Unfit
from worker.broker.refusals import ServerIsReadOnlyError, meaning

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from redis import Redis

#: Does nothing, and needs of the server what every move needs before it begins. Returns 1 if scripts can ask for
#: permissions, else 0.
_PROBE = "#!lua flags=allow-oom\nreturn redis.acl_check_cmd and 1 or 0"
#: The fields of ``INFO`` that are judged. Valkey reports a ``redis_version`` too: 7.2.4.
_NEEDED_FIELDS = ("redis_version", "maxmemory_policy", "aof_enabled")


@dataclass(frozen=True, slots=True)
class Risk:
    """A problem with which the worker may start: what can be lost, and the fix."""

    problem: str
    advice: str


@dataclass(frozen=True, slots=True)
class Unknown:
    """A check that the server does not allow: why not, and what to check by hand."""

    problem: str
    advice: str


Finding: TypeAlias = Unfit | Risk | Unknown

_ASKS_NO_PERMISSION = Unknown(
    "The scripts of this server cannot ask what the worker's user may do (redis.acl_check_cmd): a move that lacks a"
    " permission stops half way, and its jobs can be lost.",
    "Give the user all that docs/redis.md lists; where the service has no access control lists, nothing is to be done.",
)
_LOOK_YOURSELF = "see yourself that its version is 7 or newer, maxmemory-policy is noeviction and appendonly is yes"


def look(client: Redis, keys: Sequence[str], *, allow_eviction: bool, is_cluster: bool = False) -> list[Finding]:
    """Check a server.

    Args:
        client: a client of the server.
        keys: keys that one script must be able to use together.
        allow_eviction: accept a server that deletes keys when it is full.
        is_cluster: it is to be a node of a cluster.

    Returns:
        The findings; none if all is well.

    Raises:
        ServerIsReadOnlyError: it is a replica, so another server is to be checked.
        RedisError: it does not answer now, or it refuses for a reason that may pass.
    """
    try:
        info = client.info()
    except ResponseError as error:  # the access control list forbids INFO, or the command was renamed
        unknown = Unknown(f"Redis does not let the worker look at it: {error}", f"Allow INFO, or {_LOOK_YOURSELF}.")
        return [unknown, *_scripts(client, keys)]
    if info.get("role") in {"slave", "replica"}:
        raise ServerIsReadOnlyError("You can't write against a read only replica.")  # in the server's own words
    found = findings(info, allow_eviction=allow_eviction, is_cluster=is_cluster)
    # An unfit server would only refuse the script too.
    return found if any(isinstance(finding, Unfit) for finding in found) else [*found, *_scripts(client, keys)]


def _scripts(client: Redis, keys: Sequence[str]) -> Iterator[Finding]:
    """Run a script with the flags and keys of the moves."""
    try:
        asks_permission = bool(client.eval(_PROBE, len(keys), *keys))
    except ResponseError as error:
        unfit = meaning(error)
        if not isinstance(unfit, Unfit):
            raise
        yield unfit
        return
    if not asks_permission:
        yield _ASKS_NO_PERMISSION


def findings(info: Mapping[str, Any], *, allow_eviction: bool, is_cluster: bool = False) -> list[Finding]:
    """Return the findings in the answer to ``INFO``; none if all is well."""
    missing = [name for name in _NEEDED_FIELDS if name not in info]
    found: list[Finding] = [
        *_kind(info, is_cluster=is_cluster),
        *_eviction(info, allow_eviction=allow_eviction),
        *_persistence(info),
    ]
    if missing:
        found.append(Unknown(f"Redis does not tell its {', '.join(missing)}.", f"Please {_LOOK_YOURSELF}."))
    return found


def _kind(info: Mapping[str, Any], *, is_cluster: bool) -> Iterator[Finding]:
    version = str(info.get("redis_version", OLDEST_MAJOR))
    major = version.partition(".")[0]
    if major.isdecimal() and int(major) < OLDEST_MAJOR:
        yield Unfit(
            f"This is Redis {version}, and lock-worker needs Redis {OLDEST_MAJOR} or newer, or Valkey.",
            "Upgrade the server, or let REDIS_URL name another one.",
        )
    mode = info.get("redis_mode") or info.get("server_mode") or "standalone"  # the second is Valkey's
    if mode == "cluster" and not is_cluster:
        yield IS_A_CLUSTER
    elif mode == "sentinel":
        yield Unfit(
            "REDIS_URL names a server, and there is a sentinel, which holds no keys.",
            "Let REDIS_URL start with redis+sentinel://, and end in the name of the primary and a database: "
            "redis+sentinel://sentinel-1,sentinel-2,sentinel-3/mymaster/0.",
        )
    elif mode != "cluster" and is_cluster:
        yield NOT_A_CLUSTER


def _eviction(info: Mapping[str, Any], *, allow_eviction: bool) -> Iterator[Finding]:
    policy = str(info.get("maxmemory_policy", "noeviction"))
    if policy == "noeviction":
        return
    # Unfit even without a `maxmemory`: an operator who sets that limit later may not think of the policy.
    lost = "the ids of ended jobs, so that copies of them run" if policy.startswith("volatile-") else "jobs and results"
    problem = f"The maxmemory-policy of Redis is {policy}: when its memory is full, it throws away {lost}."
    fix = "Set maxmemory-policy to noeviction"
    if allow_eviction:
        yield Risk(problem, f"{fix}.")
    else:
        yield Unfit(problem, f"{fix}, or REDIS_ALLOW_EVICTION to true to run with that risk.")


def _persistence(info: Mapping[str, Any]) -> Iterator[Finding]:
    if not info.get("aof_enabled", True):
        yield Risk(
            "Redis writes no append-only file: a crash loses all data since its last snapshot, or "
            "everything if it takes none.",
            "Set appendonly to yes.",
        )
