"""Which connections are opened, used again, and closed."""

from __future__ import annotations

import asyncio
import gc
import socket
import tracemalloc
from typing import Any

import pytest
import uvloop

from tasks.managem.client import ManagemApi, Response
from tasks.managem.connection import LIFE_SECONDS
from tests.managem.client import MakeApi, fail_to_lock, lock, watch_heads
from tests.managem.raw_host import PATIENCE_SECONDS, RawHost, Visit, answer, answering


async def test_calls_one_after_another_use_one_connection(make_api: MakeApi) -> None:
    async with RawHost(answering(answer())) as host:
        api = make_api(host.url)
        for _ in range(20):
            await lock(api)
    assert host.connections == 1


@pytest.mark.parametrize("concurrency", [1, 200])
async def test_as_many_calls_as_allowed_run_at_once(make_api: MakeApi, concurrency: int) -> None:
    async def talk(visit: Visit) -> None:
        await visit.request()
        await all_there.wait()
        await visit.send(answer())
        await visit.client_hangs_up()

    all_there = asyncio.Event()
    async with RawHost(talk) as host:
        api = make_api(host.url, concurrency=concurrency)
        calls = [asyncio.create_task(lock(api)) for _ in range(concurrency)]
        await host.until(lambda: len(host.requests) == concurrency, "all requests are there")
        all_there.set()
        assert {(await call).status for call in calls} == {200}
    assert host.connections == concurrency


async def test_a_call_beyond_them_waits_for_one_to_end(make_api: MakeApi) -> None:
    async with RawHost(answering(answer())) as host:
        api = make_api(host.url, concurrency=2)
        answers = await asyncio.gather(*(lock(api) for _ in range(10)))
    assert {got.status for got in answers} == {200}
    assert host.connections == 2


async def test_an_idle_connection_that_the_host_has_closed_is_not_used(make_api: MakeApi) -> None:
    async def talk(visit: Visit) -> None:
        await visit.request()
        await visit.send(answer())
        visit.say_goodbye()
        await visit.client_hangs_up()

    async with RawHost(talk) as host:
        api = make_api(host.url)
        for count in range(1, 4):
            assert (await lock(api)).status == 200
            await host.until(lambda: host.open_connections == 0, "the client has closed its side too")
            assert host.connections == count


async def test_a_host_that_hangs_up_on_the_next_request_is_unreachable_once(make_api: MakeApi) -> None:
    async def talk(visit: Visit) -> None:
        await visit.request()
        await visit.send(answer())
        await visit.request()

    async with RawHost(talk) as host:
        api = make_api(host.url)
        assert (await lock(api)).status == 200
        assert (await fail_to_lock(api)).kind == "unreachable"
        assert (await lock(api)).status == 200
    assert len(host.requests) == 3  # nothing was sent twice


async def test_connections_that_idle_for_too_long_are_closed(
    make_api: MakeApi, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tasks.managem.transport.KEEP_ALIVE_SECONDS", 0.05)
    async with RawHost(answering(answer())) as host:
        await lock(make_api(host.url))
        await host.until(lambda: host.open_connections == 0, "the client has closed the connection")


async def test_a_host_that_wants_to_close_is_obeyed(make_api: MakeApi) -> None:
    async with RawHost(answering(answer("200 OK", b"{}", "Connection: close"))) as host:
        api = make_api(host.url)
        await lock(api)
        await host.until(lambda: host.open_connections == 0, "the client has closed the connection")
        await lock(api)
    assert host.connections == 2


EXTRAS = {
    "another answer": answer("404 Not Found"),
    "half an answer": b"HTTP/1.1 404 N",
    "no HTTP": b"garbage",
    "more answers than a read takes": answer("404 Not Found") * 20_000,
}


@pytest.mark.parametrize("extra", EXTRAS)
async def test_what_comes_behind_an_answer_neither_undoes_it_nor_answers_the_next_request(
    make_api: MakeApi, extra: str
) -> None:
    async with RawHost(answering(answer("201 Created", b"{}") + EXTRAS[extra])) as host:
        api = make_api(host.url)
        for _ in range(3):
            assert await lock(api) == Response(201, b"{}", None)
        await host.until(lambda: host.open_connections == 0, "the client has hung up")
    assert host.connections == len(host.requests) == 3


@pytest.mark.parametrize("extra", ["HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n", "x", "\r\n"])
async def test_a_connection_on_which_the_host_speaks_unasked_is_closed_at_once(make_api: MakeApi, extra: str) -> None:
    async def talk(visit: Visit) -> None:
        await visit.request()
        await visit.send(answer("201 Created"))
        await first_is_over.wait()
        await visit.send(extra.encode())
        await visit.client_hangs_up()

    first_is_over = asyncio.Event()
    async with RawHost(talk) as host:
        api = make_api(host.url)
        assert (await lock(api)).status == 201
        first_is_over.set()
        await host.until(lambda: host.open_connections == 0, "the client has hung up")
        assert (await lock(api)).status == 201
    assert host.connections == len(host.requests) == 2


@pytest.mark.parametrize("when", ["between two calls", "during a call", "before the first call is answered"])
async def test_a_host_that_sends_answers_for_ever_fills_no_memory(make_api: MakeApi, when: str) -> None:
    flood = answer("200 OK", b"", "X: y") * 1_000

    async def talk(visit: Visit) -> None:
        if when != "before the first call is answered":
            await visit.request()
            await visit.send(answer())
        if when == "during a call":
            await visit.request()
        while True:  # until the client hangs up
            await visit.send(flood)

    async with RawHost(talk) as host:
        api = make_api(host.url)
        tracemalloc.start()
        try:
            for _ in range(2 if when == "during a call" else 1):
                await asyncio.gather(lock(api), return_exceptions=True)
            await host.until(lambda: host.open_connections == 0, "the client has hung up")
            _, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
    assert peak < 48 * 1024 * 1024  # of what one read brings, and not more


async def test_interim_answers_for_ever_are_no_answer(make_api: MakeApi) -> None:
    async def talk(visit: Visit) -> None:
        await visit.request()
        while True:
            await visit.send(b"HTTP/1.1 102 Processing\r\n\r\n" * 1_000)

    async with RawHost(talk) as host:
        failure = await fail_to_lock(make_api(host.url))
        await host.until(lambda: host.open_connections == 0, "the client has hung up")
    assert failure.kind == "unusable"


async def test_a_connection_is_not_used_for_much_longer_than_a_minute(
    make_api: MakeApi, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert max(LIFE_SECONDS) <= 60
    async with RawHost(answering(answer())) as host:
        monkeypatch.setattr("tasks.managem.connection.LIFE_SECONDS", (0.0, 0.0))
        api = make_api(host.url)
        for _ in range(3):
            assert (await lock(api)).status == 200
        assert host.connections == 3
        monkeypatch.setattr("tasks.managem.connection.LIFE_SECONDS", (30.0, 60.0))
        for _ in range(3):
            assert (await lock(api)).status == 200
        assert host.connections == 4


async def test_calls_follow_the_hosts_name_to_another_address_while_the_old_one_still_answers(
    make_api: MakeApi, monkeypatch: pytest.MonkeyPatch
) -> None:
    resolve = uvloop.Loop.getaddrinfo

    async def names(loop: uvloop.Loop, host: str, port: int, **options: int) -> list[Any]:
        if host != "api.invalid":
            return await resolve(loop, host, port, **options)
        return [(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP, "", (address, port))]

    monkeypatch.setattr("tasks.managem.connection.LIFE_SECONDS", (0.2, 0.4))
    monkeypatch.setattr("tasks.managem.transport.NAME_SECONDS", 0)
    monkeypatch.setattr(uvloop.Loop, "getaddrinfo", names)
    address = "127.0.0.1"
    async with (
        RawHost(answering(answer())) as old,
        RawHost(answering(answer()), address="127.0.0.2", port=old.port) as new,
    ):
        api = make_api(f"http://api.invalid:{old.port}")
        assert (await lock(api)).status == 200
        assert (len(old.requests), len(new.requests)) == (1, 0)
        address = "127.0.0.2"
        async with asyncio.timeout(PATIENCE_SECONDS):
            while not new.requests:  # never idle for long: the connection must end though it is in use
                assert (await lock(api)).status == 200


@pytest.mark.parametrize("moment", ["before the answer", "in the body"])
async def test_a_cancelled_call_gives_up_its_connection_at_once(make_api: MakeApi, moment: str) -> None:
    async def talk(visit: Visit) -> None:
        await visit.request()
        if host.connections == 1:
            if moment == "in the body":
                await visit.send(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n12345")
            await visit.client_hangs_up()
        await visit.send(answer())

    async with RawHost(talk) as host:
        api = make_api(host.url, concurrency=1)
        head_taken = watch_heads(api)
        call = asyncio.create_task(lock(api))
        await host.until(lambda: len(host.requests) == 1, "the request is there")
        if moment == "in the body":
            await head_taken.wait()
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
        await host.until(lambda: host.open_connections == 0, "the client has hung up")
        assert (await lock(api)).status == 200  # the only connection there may be is free again


async def test_a_call_cancelled_while_it_connects_leaves_nothing_behind(make_api: MakeApi) -> None:
    async with RawHost(Visit.client_hangs_up) as host:
        api = make_api(host.url.replace("http:", "https:"), concurrency=1)
        call = asyncio.create_task(lock(api))
        await host.until(lambda: host.connections == 1, "the handshake has begun")
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
        await host.until(lambda: host.open_connections == 0, "the client has hung up")


async def test_closing_ends_the_calls_in_flight_and_refuses_later_ones(make_api: MakeApi) -> None:
    async def talk(visit: Visit) -> None:
        await visit.request()
        await visit.client_hangs_up()

    async with RawHost(talk) as host:
        api = make_api(host.url)
        call = asyncio.create_task(fail_to_lock(api))
        await host.until(lambda: len(host.requests) == 1, "the request is there")
        await api.aclose()
        assert (await call).kind == "unreachable"
        assert (await fail_to_lock(api)).kind == "unreachable"
        await api.aclose()
    assert host.connections == 1


async def test_closing_refuses_the_calls_that_wait_for_a_connection(make_api: MakeApi) -> None:
    async with RawHost(Visit.client_hangs_up) as host:
        api = make_api(host.url, concurrency=1)
        calls = [asyncio.create_task(fail_to_lock(api)) for _ in range(3)]
        await host.until(lambda: host.connections == 1, "one call has the connection")
        await api.aclose()
        assert [(await call).kind for call in calls] == ["unreachable"] * 3


async def test_closing_refuses_the_calls_that_wait_for_a_name(
    make_api: MakeApi, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = asyncio.Event()

    async def never(*_: object, **__: object) -> list[object]:
        asked.set()
        return await asyncio.Future()

    monkeypatch.setattr(uvloop.Loop, "getaddrinfo", never)
    api = make_api("http://slow.invalid")
    calls = [asyncio.create_task(fail_to_lock(api)) for _ in range(3)]
    await asyncio.wait_for(asked.wait(), PATIENCE_SECONDS)
    await api.aclose()
    assert [(await call).kind for call in calls] == ["unreachable"] * 3


async def test_an_idle_connection_that_the_host_resets_leaves_no_complaint(
    make_api: MakeApi, caplog: pytest.LogCaptureFixture
) -> None:
    async def talk(visit: Visit) -> None:
        for _ in range(2):
            await visit.request()
            await visit.send(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n")
            await head_taken.wait()
            head_taken.clear()
            await visit.send(b"{}")
        await over.wait()
        visit.reset()

    over = asyncio.Event()
    async with RawHost(talk) as host:
        api = make_api(host.url)
        head_taken = watch_heads(api)
        await lock(api)
        await lock(api)
        assert host.connections == 1
        over.set()
        await host.until(lambda: host.open_connections == 0, "the host has reset the connection")
        async with asyncio.timeout(PATIENCE_SECONDS):
            while host.connections == 1:  # until the client has noticed
                await asyncio.gather(lock(api), return_exceptions=True)
        await api.aclose()
    gc.collect()
    assert caplog.text == ""


async def test_a_client_that_was_never_used_can_be_closed_and_dropped() -> None:
    api = ManagemApi(
        base_url="http://127.0.0.1:9", token=lambda: "t", timeout_seconds=1, concurrency=1, user_agent="lock-worker/0"
    )
    await api.aclose()
    del api
    gc.collect()  # pytest turns a warning about something left open into an error
