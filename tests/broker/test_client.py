"""The asyncio side's way to Redis: one answer for each command, and no connection that another answer may come on."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import TYPE_CHECKING

import pytest
from pydantic import SecretStr
from redis import Redis
from redis.asyncio import Connection
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import ReadOnlyError, ResponseError
from redis.exceptions import TimeoutError as RedisTimeoutError

from settings import Settings
from tests.broker.workbench import link_to
from worker.broker.backoff import ConnectBackoff
from worker.broker.client import RedisClient
from worker.broker.connection import async_client
from worker.broker.refusals import NotConnectedError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator


@pytest.fixture
async def link(redis_url: str) -> AsyncIterator[RedisClient]:
    found = link_to(redis_url, timeout_seconds=0.3)
    yield found
    await found.disconnect()


async def test_commands_at_once_get_each_its_own_answer(redis_url: str) -> None:
    link = link_to(redis_url, timeout_seconds=5)
    answers = await asyncio.gather(*(link.execute_command("ECHO", str(number)) for number in range(20)))
    await link.disconnect()

    assert answers == [b"%d" % number for number in range(20)]


async def test_a_refused_command_keeps_its_connection(link: RedisClient) -> None:
    client_id = await link.execute_command("CLIENT", "ID")

    with pytest.raises(ResponseError, match="unknown command"):
        await link.execute_command("NONSENSE")

    assert await link.execute_command("CLIENT", "ID") == client_id


async def test_an_answer_that_comes_too_late_is_never_taken_for_another_one(link: RedisClient) -> None:
    with pytest.raises(RedisTimeoutError, match=r"no answer within 0\.3 seconds"):
        await link.execute_command("BLPOP", "late", 1)

    assert await link.execute_command("ECHO", "mine") == b"mine"


async def test_the_answer_of_a_cancelled_command_is_never_taken_for_another_one(link: RedisClient) -> None:
    waiting = asyncio.create_task(link.execute_command("BLPOP", "late", 1))
    await link.execute_command("PING")
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting

    answers = await asyncio.gather(*(link.execute_command("ECHO", str(number)) for number in range(3)))

    assert answers == [b"0", b"1", b"2"]


@pytest.mark.parametrize("is_connected", [True, False], ids=["sending", "connecting"])
async def test_work_ends_when_it_is_cancelled_in_any_turn_of_the_loop(redis_url: str, *, is_connected: bool) -> None:
    """A client that loses a cancellation keeps a worker from ending: it goes on with its next command for ever.

    redis-py does so on Python 3.11 where it has a time-out for single writes, which go through ``asyncio.wait_for``
    then. The worker's connections have none: the client's own time-out is over the whole command.
    """
    for turns in range(60):
        settings = Settings(REDIS_URL=SecretStr(redis_url))
        link = async_client(settings, ConnectBackoff(), None, on_useless=lambda _: None)
        if is_connected:
            await link.execute_command("PING")
        is_over = asyncio.Event()

        async def work(link: RedisClient = link, is_over: asyncio.Event = is_over) -> None:
            while not is_over.is_set():
                await link.execute_command("ECHO", b"x" * 300_000)

        task = asyncio.create_task(work())
        for _ in range(turns):
            await asyncio.sleep(0)

        task.cancel()

        await asyncio.wait({task}, timeout=5)
        is_over.set()  # or a task that did not hear of it would keep this test from ending
        assert task.cancelled(), f"cancelled in turn {turns}"
        await link.disconnect()


async def test_a_lost_connection_is_reported_and_the_next_command_makes_another(
    link: RedisClient, redis_url: str
) -> None:
    await link.execute_command("PING")
    with Redis.from_url(redis_url) as other:
        other.client_kill_filter(_type="normal", skipme=True)

    with pytest.raises((RedisConnectionError, OSError)):
        await link.execute_command("PING")

    assert await link.execute_command("PING") == b"PONG"


async def test_where_nobody_listens_that_is_reported() -> None:
    nobody = link_to("redis://127.0.0.1:1/0", timeout_seconds=1)

    with pytest.raises((RedisConnectionError, OSError)):
        await nobody.execute_command("PING")


async def test_commands_of_one_write_are_run_in_order_and_each_is_answered(link: RedisClient) -> None:
    answers = await link.send(["INCR", "n"], ["INCR", "n"], ["GET", "n"])

    assert [await answers.next() for _ in range(3)] == [1, 2, b"2"]


async def test_commands_of_one_write_use_one_connection_which_is_free_after_the_last_answer(link: RedisClient) -> None:
    client_id = await link.execute_command("CLIENT", "ID")
    answers = await link.send(["CLIENT", "ID"], ["BLPOP", "late", "0.05"])
    assert await answers.next() == client_id
    assert await link.execute_command("CLIENT", "ID") != client_id

    assert await answers.next() is None

    assert await link.execute_command("CLIENT", "ID") == client_id


async def test_a_command_that_is_refused_does_not_keep_those_behind_it_from_being_answered(link: RedisClient) -> None:
    answers = await link.send(["NONSENSE"], ["ECHO", "mine"])

    with pytest.raises(ResponseError, match="unknown command"):
        await answers.next()

    assert await answers.next() == b"mine"


async def test_answers_that_nobody_wants_any_more_are_never_taken_for_another_one(link: RedisClient) -> None:
    answers = await link.send(["ECHO", "first"], ["ECHO", "second"])
    assert await answers.next() == b"first"

    await answers.close()

    assert await link.execute_command("ECHO", "mine") == b"mine"
    with pytest.raises(RedisConnectionError, match="closed before this answer"):
        await answers.next()


async def test_the_last_answer_has_as_much_time_as_the_first(redis_url: str) -> None:
    """A wait that is sent behind another command may last longer than what is left of that one's time."""
    patient = link_to(redis_url, timeout_seconds=1)
    answers = await patient.send(["BLPOP", "late", "0.55"], ["BLPOP", "late", "0.55"])

    assert [await answers.next() for _ in range(2)] == [None, None]
    await patient.disconnect()


@pytest.fixture
def demote(redis_url: str) -> Iterator[Callable[[], None]]:
    """Makes the server a read-only replica until the test is over."""
    with Redis.from_url(redis_url) as other:
        yield lambda: other.replicaof("127.0.0.1", "1")
        other.replicaof("NO", "ONE")


async def test_a_connection_to_a_server_that_was_demoted_is_left_with_all_idle_ones(
    link: RedisClient, demote: Callable[[], None]
) -> None:
    """The server keeps them open, and the address may lead to another one by now."""
    told: list[BaseException] = []
    link._on_useless = told.append
    ids = await asyncio.gather(*(link.execute_command("CLIENT", "ID") for _ in range(3)))
    demote()

    with pytest.raises(ReadOnlyError):
        await link.execute_command("SET", "a", "b")

    assert [type(error) for error in told] == [ReadOnlyError]
    after = await asyncio.gather(*(link.execute_command("CLIENT", "ID") for _ in range(3)))
    assert set(ids).isdisjoint(after)


async def test_a_wait_on_a_server_that_is_demoted_is_left(link: RedisClient, demote: Callable[[], None]) -> None:
    told: list[BaseException] = []
    link._on_useless = told.append
    answers = await link.send(["CLIENT", "ID"], ["BLMOVE", "a", "b", "RIGHT", "LEFT", "0.25"])
    client_id = await answers.next()
    demote()

    with pytest.raises(ResponseError, match="UNBLOCKED"):
        await answers.next()

    assert len(told) == 1
    assert await link.execute_command("CLIENT", "ID") != client_id


async def test_answers_that_were_under_way_when_another_connection_was_lost_end_their_own(
    link: RedisClient, redis_url: str
) -> None:
    answers = await link.send(["CLIENT", "ID"], ["BLPOP", "late", "0.1"])
    client_id = await answers.next()
    other_id = await link.execute_command("CLIENT", "ID")
    with Redis.from_url(redis_url) as other:
        other.client_kill_filter(_id=str(other_id))
    with pytest.raises((RedisConnectionError, OSError)):
        await link.execute_command("PING")

    assert await answers.next() is None

    assert await link.execute_command("CLIENT", "ID") != client_id


async def test_that_nothing_was_sent_is_known_where_there_is_no_connection() -> None:
    nobody = link_to("redis://127.0.0.1:1/0", timeout_seconds=1)

    with pytest.raises(NotConnectedError):
        await nobody.execute_command("PING")


async def test_many_commands_that_find_no_server_connect_one_at_a_time(redis_url: str) -> None:
    made = 0

    def connect() -> Connection:
        nonlocal made
        made += 1
        return Connection(host="127.0.0.1", port=port, retry=Retry(NoBackoff(), 0))

    port = 1
    link = RedisClient(connect, timeout_seconds=5, backoff=ConnectBackoff())
    with pytest.raises(NotConnectedError):
        await link.execute_command("PING")
    made = 0

    async def insistent() -> bytes:
        while True:
            with suppress(NotConnectedError):
                return bytes(await link.execute_command("PING"))

    waiting = [asyncio.create_task(insistent()) for _ in range(20)]
    await asyncio.sleep(1)  # of nothing but failures
    assert 0 < made <= 6
    port = int(redis_url.rpartition(":")[2].partition("/")[0])

    assert await asyncio.gather(*waiting) == [b"PONG"] * 20
    await link.disconnect()
