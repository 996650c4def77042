"""All checks in order, each as far as those before it allow."""

from __future__ import annotations

from typing import TYPE_CHECKING

from redis.exceptions import RedisError

from worker.broker.connection import sync_client
from worker.cli.doctor.api_checks import api_checks
from worker.cli.doctor.check import problem
from worker.cli.doctor.fleet_checks import fleet_checks
from worker.cli.doctor.redis_checks import redis_checks
from worker.cli.doctor.setting_checks import fight_checks, load_checks
from worker.cli.refusals import described
from worker.runtime.fleet_state import FleetNames, read_fleet_state_now

if TYPE_CHECKING:
    from collections.abc import Iterator

    from redis import Redis

    from settings import Settings
    from worker.cli.doctor.check import Check


def examine() -> Iterator[Check]:
    """Yield what each check finds. Nothing is changed, and no call is made."""
    settings, found = load_checks()
    yield from found
    if settings is None:
        return
    yield from fight_checks(settings)
    with sync_client(settings) as client:
        is_there = False
        for check in redis_checks(client, settings):
            is_there |= check.name == "redis" and check.level == "ok"
            yield check
        if is_there:
            yield from _fleet(client, settings)
    yield from api_checks(settings)


def _fleet(client: Redis, settings: Settings) -> Iterator[Check]:
    try:
        state = read_fleet_state_now(client, FleetNames.of(settings))
    except RedisError as error:
        what, _, mend = described(error).partition("\n")
        yield problem("fleet", f"The state of the queue cannot be read: Redis{what}", mend or "See docs/redis.md.")
    else:
        yield from fleet_checks(state, settings)
