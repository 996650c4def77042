"""Checks of the server at REDIS_URL: it is there, fit, has room, and allows what a worker does. They change nothing."""

from __future__ import annotations

import time
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

from redis.exceptions import RedisError, ResponseError

from worker.broker.address_resolver import SentinelResolver
from worker.broker.connection import address_resolver
from worker.broker.keys import Keys
from worker.broker.layout import newer_layout
from worker.broker.permissions import UsedNames, refused_commands
from worker.broker.redis_problems import Unfit
from worker.broker.redis_url import Topology
from worker.broker.refusals import ServerIsReadOnlyError
from worker.broker.server_check import look
from worker.broker.stream_bounds import StreamBounds
from worker.cli.doctor.check import ok, problem, warning
from worker.cli.doctor.redis_login import login_checks
from worker.cli.exit import redis_address
from worker.cli.refusals import described

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from redis import Redis

    from settings import Settings
    from worker.cli.doctor.check import Check

_FULL, _NEARLY_FULL = 0.95, 0.8
#: A clock that differs by more is told, in seconds.
_CLOCK_SECONDS = 2.0
_MIB = 1024 * 1024
_KEYS_NAMED = 3


def redis_checks(client: Redis, settings: Settings) -> Iterator[Check]:
    """Yield what was found; only the first check, if the server cannot be reached."""
    try:
        began = time.time()
        seconds, microseconds = client.time()
        ended = time.time()
        info: dict[str, Any] = _info(client)
    except (RedisError, OSError) as error:
        yield _unreachable(error, settings)
        return
    yield ok("redis", f"{_server(info)} answers at {redis_address(settings)}")
    checks: tuple[tuple[str, Callable[[], Iterator[Check]]], ...] = (
        ("redis_sentinels", lambda: sentinels(settings)),
        ("redis_login", lambda: login_checks(client, settings)),
        ("redis_server", lambda: server(client, settings)),
        ("redis_layout", lambda: layout(client, settings)),
        ("redis_database", lambda: database(client)),
        ("redis_clock", lambda: clock(seconds + microseconds / 1e6, began, ended)),
        ("redis_disk", lambda: disk(info)),
        ("redis_memory", lambda: memory(info)),
        ("redis_streams", lambda: streams(info, settings)),
        ("redis_permissions", lambda: permissions(client, settings)),
    )
    for name, check in checks:
        try:
            yield from check()
        except (RedisError, OSError) as error:
            yield problem(name, *_in_two(error, settings))


def _info(client: Redis) -> dict[str, Any]:
    try:
        return dict(client.info())
    except ResponseError:  # the check of the server says that it may not be asked
        return {}


def _server(info: Mapping[str, Any]) -> str:
    if "valkey_version" in info:
        return f"Valkey {info['valkey_version']}"
    return f"Redis {info['redis_version']}" if "redis_version" in info else "a server"


def _unreachable(error: RedisError | OSError, settings: Settings) -> Check:
    return problem("redis", *_in_two(error, settings))


def _in_two(error: RedisError | OSError, settings: Settings) -> tuple[str, str]:
    """Return what happened, and how to fix it."""
    told = described(error) if isinstance(error, RedisError) else f": {error}\nLook whether the server is up."
    what, _, mend = told.partition("\n")
    return f"Redis at {redis_address(settings)}{what}", mend or "Look at the server's log."


def server(client: Redis, settings: Settings) -> Iterator[Check]:
    """Check version, mode, maxmemory-policy, persistence and role, as a worker does at its start."""
    keys = Keys(settings.LOCK_QUEUE)
    together = [*keys.priority_lists, keys.arrived, keys.leases, *settings.streams]
    try:
        found = look(
            client,
            together,
            allow_eviction=settings.REDIS_ALLOW_EVICTION,
            is_cluster=settings.redis.topology is Topology.CLUSTER,
        )
    except ServerIsReadOnlyError:
        yield problem(
            "redis_server",
            f"Redis at {redis_address(settings)} is a replica: it takes no writes.",
            "Let REDIS_URL name the primary.",
        )
        return
    for finding in found:
        kind = problem if isinstance(finding, Unfit) else warning
        yield kind("redis_server", finding.problem, finding.advice)
    if not found:
        yield ok("redis_server", "it is a primary, new enough, throws no keys away, and writes an append-only file")


def sentinels(settings: Settings) -> Iterator[Check]:
    """Check that each sentinel knows the primary; a worker asks the next one where it does not."""
    resolver = address_resolver(settings)
    if not isinstance(resolver, SentinelResolver):
        return
    views = list(resolver.views())
    odd = [(name, view) for name, view in views if not (isinstance(view, dict) and resolver.is_up(view))]
    for name, view in odd:
        what = "believes that the primary is down"
        if isinstance(view, RedisError):
            what = f"does not answer: {str(view).rstrip('.')}"
        elif view is None:
            what = f"does not know the name {settings.redis.master_name}"
        yield warning("redis_sentinels", f"The sentinel at {name} {what}.", "Look at it, or take it out of REDIS_URL.")
    if len({(view["ip"], view["port"]) for _, view in views if isinstance(view, dict)}) > 1:
        yield warning(
            "redis_sentinels",
            "The sentinels name different primaries.",
            "If this lasts longer than a failover, give each group of sentinels names of its own.",
        )
    elif not odd:
        yield ok("redis_sentinels", f"each of the {len(views)} sentinels names the primary")


def layout(client: Redis, settings: Settings) -> Iterator[Check]:
    """Check that this version can read the jobs of the queue."""
    unreadable = newer_layout(client, [settings.LOCK_QUEUE], version("lock-worker"))
    if unreadable is None:
        yield ok("redis_layout", "this version reads the jobs that are in the queue")
    else:
        yield problem("redis_layout", unreadable.problem, unreadable.advice)


def database(client: Redis) -> Iterator[Check]:
    """Warn of what databases of one server share."""
    number = client.connection_pool.connection_kwargs.get("db") or 0
    if number:
        yield warning(
            "redis_database",
            f"REDIS_URL names the database {number}, and pub/sub knows no databases: who listens to RESULTS_CHANNEL "
            "hears the events of every database of this server. The streams are not affected.",
            "Give each environment its own RESULTS_CHANNEL and EVENT_SOURCE, or a server of its own.",
        )


def clock(server_seconds: float, began: float, ended: float) -> Iterator[Check]:
    """Compare the server's clock with this machine's; times are in seconds since 1970."""
    apart = max(server_seconds - ended, began - server_seconds, 0.0)
    if apart > _CLOCK_SECONDS:
        yield warning(
            "redis_clock",
            f"The clock of Redis and that of this machine are {apart:.1f} s apart. Workers go by that of Redis: an eta "
            "or an expiry that a producer sets by another clock is off by as much.",
            "Let both keep their time by NTP.",
        )
    else:
        yield ok("redis_clock", "its clock agrees with this machine's")


def disk(info: Mapping[str, Any]) -> Iterator[Check]:
    """Check that the last writes to disk went well."""
    for field, what in (
        ("rdb_last_bgsave_status", "snapshot"),
        ("aof_last_write_status", "write of its append-only file"),
    ):
        if info.get(field, "ok") != "ok":
            yield problem(
                "redis_disk",
                f"The last {what} of Redis failed: it may refuse all writes (MISCONF), and a crash loses data.",
                "Look at the server's log and at its disk.",
            )


def memory(info: Mapping[str, Any]) -> Iterator[Check]:
    """Check the room for jobs."""
    used, limit = int(info.get("used_memory", 0)), int(info.get("maxmemory", 0))
    if not limit:
        yield ok("redis_memory", f"it uses {used / _MIB:,.0f} MiB, and has no maxmemory")
    elif used >= limit * _NEARLY_FULL:
        kind = problem if used >= limit * _FULL else warning
        yield kind(
            "redis_memory",
            f"Redis uses {used / limit:.0%} of its maxmemory ({limit / _MIB:,.0f} MiB); when that is full, it refuses "
            "new jobs.",
            "Raise maxmemory, or let the workers drain the backlog: they go on.",
        )
    else:
        yield ok("redis_memory", f"it uses {used / limit:.0%} of its maxmemory ({limit / _MIB:,.0f} MiB)")


def streams(info: Mapping[str, Any], settings: Settings) -> Iterator[Check]:
    """Check that the streams, which stay full once they are, leave room for jobs."""
    bounds = StreamBounds(settings.RESULTS_MAX_BYTES, settings.DEAD_MAX_BYTES, int(info.get("maxmemory", 0)))
    if bounds.are_lowered:
        yield warning(
            "redis_streams",
            "RESULTS_MAX_BYTES and DEAD_MAX_BYTES do not fit the maxmemory of Redis: the results are kept to "
            f"{bounds.results_bytes / _MIB:,.0f} MiB and the dead letters to {bounds.dead_bytes / _MIB:,.0f} MiB.",
            "Raise maxmemory to twice the results and four times the dead letters, or lower the two settings.",
        )


def permissions(client: Redis, settings: Settings) -> Iterator[Check]:
    """Ask for each command of a worker whether the server allows it; none is run."""
    names = UsedNames(
        Keys(settings.LOCK_QUEUE), settings.RESULTS_CHANNEL, settings.DEAD_STREAM, settings.CONTROL_STREAM
    )
    refused = refused_commands(client, names)
    if refused is None:  # the check of the server says so
        return
    for each in refused:
        keys = ", ".join(each.on[:_KEYS_NAMED]) + (", ..." if len(each.on) > _KEYS_NAMED else "")
        yield problem(
            "redis_permissions",
            f"The user in REDIS_URL may not run {each.command} on {keys}.",
            f"Give it {each.rule} and the keys and the channel (~, &) that docs/redis.md lists.",
        )
    if not refused:
        yield ok("redis_permissions", "the user in REDIS_URL may do all that a worker does")
