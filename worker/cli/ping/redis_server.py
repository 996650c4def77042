"""Asks Redis, for a pod that has no health port."""

from __future__ import annotations

from redis.exceptions import RedisError

import settings
from worker.broker.connection import sync_client
from worker.cli.exit import redis_address
from worker.cli.ping.health_port import Answer, PingError
from worker.cli.refusals import described


def ask() -> Answer:
    """Send Redis a PING.

    Raises:
        PingError: the settings are wrong, or Redis does not answer as it should.
    """
    try:
        found = settings.load(need_token=False)
    except settings.SettingsError as error:
        problems = (line.removeprefix("  - ") for line in str(error).splitlines()[1:])
        raise PingError(f"the settings are wrong: {'; '.join(problems)}") from None
    asked = f"Redis at {redis_address(found)}"
    try:
        with sync_client(found) as client:
            client.ping()
    except RedisError as error:
        raise PingError(f"{asked}{' '.join(described(error).split())}") from None
    return Answer(asked)
