"""The command line's client: it leaves a server that was demoted, as a worker does."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING

import pytest

import settings
from worker.broker.connection import sync_client
from worker.broker.refusals import ServerIsReadOnlyError, UnusableServerError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from redis import Redis


@pytest.fixture
def client(redis_url: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Redis]:
    monkeypatch.setenv("REDIS_URL", redis_url)
    with sync_client(settings.load(need_token=False)) as found:
        yield found


@pytest.fixture
def primary_again(redis_client: Redis) -> Iterator[Redis]:
    """Another client of the server, which is a primary again after the test."""
    yield redis_client
    redis_client.replicaof("NO", "ONE")


def test_a_connection_to_a_server_that_was_demoted_is_made_anew(client: Redis, primary_again: Redis) -> None:
    before = client.client_id()
    primary_again.replicaof("127.0.0.1", "1")

    with pytest.raises(ServerIsReadOnlyError, match="read only"):
        client.set("a", "b")

    assert client.client_id() != before


def test_a_connection_to_a_server_that_wants_replicas_is_made_anew(client: Redis, redis_client: Redis) -> None:
    before = client.client_id()
    redis_client.config_set("min-replicas-to-write", 1)

    try:
        with pytest.raises(UnusableServerError, match="NOREPLICAS"):
            client.set("a", "b")
    finally:
        redis_client.config_set("min-replicas-to-write", 0)

    assert client.client_id() != before


def test_a_reader_that_waits_on_a_server_that_is_demoted_hears_of_a_lost_connection(
    client: Redis, primary_again: Redis
) -> None:
    def demote() -> None:
        while not primary_again.info("clients")["blocked_clients"]:
            time.sleep(0.005)
        primary_again.replicaof("127.0.0.1", "1")

    demoting = threading.Thread(target=demote)
    demoting.start()
    with pytest.raises(ServerIsReadOnlyError, match="UNBLOCKED"):
        client.xread({"moderation.results": "$"}, block=4000)
    demoting.join()
