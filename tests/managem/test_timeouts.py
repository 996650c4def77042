"""The call as a whole takes too long, wherever the time goes."""

from __future__ import annotations

import asyncio
import socket
import ssl
import time
from contextlib import ExitStack, suppress
from typing import TYPE_CHECKING

import pytest

from tasks.managem.client import Response
from tests.managem.client import MakeApi, fail_to_lock, lock
from tests.managem.raw_host import PATIENCE_SECONDS, RawHost, Visit, answer

if TYPE_CHECKING:
    import trustme

    from tasks.managem.client import CallFailedError, ManagemApi

TIMEOUT_SECONDS = 0.1


async def fail_in_time(api: ManagemApi) -> CallFailedError:
    began = time.monotonic()
    failure = await fail_to_lock(api)
    assert TIMEOUT_SECONDS * 0.9 <= time.monotonic() - began < TIMEOUT_SECONDS + 2
    assert failure.kind == "timeout"
    assert "within 0.1 seconds" in failure.detail
    return failure


async def test_a_host_that_does_not_take_the_connection(make_api: MakeApi) -> None:
    with ExitStack() as stack:
        # A queue of one, filled: the kernel leaves further connections unanswered.
        listening = stack.enter_context(socket.create_server(("127.0.0.1", 0), backlog=0))
        for _ in range(4):
            waiting = stack.enter_context(socket.socket())
            waiting.settimeout(0)
            waiting.connect_ex(listening.getsockname())
        await fail_in_time(make_api(f"http://127.0.0.1:{listening.getsockname()[1]}", timeout_seconds=TIMEOUT_SECONDS))


async def test_a_host_that_never_accepts_the_connection(make_api: MakeApi) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        await fail_in_time(make_api(f"http://127.0.0.1:{listening.getsockname()[1]}", timeout_seconds=TIMEOUT_SECONDS))


async def test_a_host_that_never_shakes_hands(make_api: MakeApi) -> None:
    async with RawHost(Visit.client_hangs_up) as host:
        url = host.url.replace("http:", "https:")
        await fail_in_time(make_api(url, timeout_seconds=TIMEOUT_SECONDS))
        await host.until(lambda: host.open_connections == 0, "the client has hung up")


@pytest.mark.parametrize(
    ("sent", "status"),
    [
        (b"", None),
        (b"HTTP/1.1 200 OK\r\nContent-Le", None),
        (b"HTTP/1.1 100 Continue\r\n\r\n", None),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n12345", 200),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\n12345\r\n", 200),
        (b"HTTP/1.1 200 OK\r\n\r\n12345", 200),
    ],
)
async def test_a_host_that_falls_silent(make_api: MakeApi, sent: bytes, status: int | None) -> None:
    async def talk(visit: Visit) -> None:
        await visit.request()
        await visit.send(sent)
        await visit.client_hangs_up()

    async with RawHost(talk) as host:
        failure = await fail_in_time(make_api(host.url, timeout_seconds=TIMEOUT_SECONDS))
        await host.until(lambda: host.open_connections == 0, "the client has hung up")
    assert failure.status == status


@pytest.mark.parametrize(
    ("beginning", "drop", "status"),
    [
        (b"HTTP/1.1 200 OK\r\n", b"X: y\r\n", None),
        (b"", b"HTTP/1.1 102 Processing\r\n\r\n", None),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", b"1\r\n.\r\n", 200),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n", b".", 200),
    ],
)
async def test_a_host_that_drips_for_ever(make_api: MakeApi, beginning: bytes, drop: bytes, status: int | None) -> None:
    async def talk(visit: Visit) -> None:
        await visit.request()
        await visit.send(beginning)
        while True:
            await visit.send(drop)
            await asyncio.sleep(TIMEOUT_SECONDS / 20)

    async with RawHost(talk) as host:
        failure = await fail_in_time(make_api(host.url, timeout_seconds=TIMEOUT_SECONDS))
        await host.until(lambda: host.open_connections == 0, "the client has hung up")
    assert failure.status == status


async def test_a_final_status_counts_even_if_its_body_drips_for_ever(make_api: MakeApi) -> None:
    async def talk(visit: Visit) -> None:
        await visit.request()
        await visit.send(b"HTTP/1.1 404 Not Found\r\nContent-Length: 1000\r\n\r\n")
        await visit.client_hangs_up()

    async with RawHost(talk) as host:
        assert await lock(make_api(host.url, timeout_seconds=TIMEOUT_SECONDS)) == Response(404, b"", None)
        await host.until(lambda: host.open_connections == 0, "the client has hung up")


async def test_the_time_spent_waiting_for_a_connection_counts(make_api: MakeApi) -> None:
    async with RawHost(Visit.client_hangs_up) as host:
        api = make_api(host.url, timeout_seconds=TIMEOUT_SECONDS, concurrency=1)
        failures = await asyncio.gather(fail_in_time(api), fail_in_time(api))
    assert [failure.kind for failure in failures] == ["timeout", "timeout"]


@pytest.mark.parametrize("answered", [b"", b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n12345"])
async def test_a_tls_host_that_is_gone_is_not_waited_for(
    make_api: MakeApi, authority: trustme.CA, answered: bytes
) -> None:
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(tls)

    def shake_hands_and_play_dead(listening: socket.socket) -> None:
        accepted, _ = listening.accept()
        with tls.wrap_socket(accepted, server_side=True) as wrapped:
            wrapped.recv(65_536)
            wrapped.sendall(answered)
            with socket.socket(fileno=wrapped.detach()) as bare:
                bare.settimeout(PATIENCE_SECONDS)
                with suppress(ConnectionResetError):
                    while bare.recv(65_536):  # never answering a polite good-bye
                        pass

    with socket.create_server(("127.0.0.1", 0)) as listening:
        host = asyncio.create_task(asyncio.to_thread(shake_hands_and_play_dead, listening))
        url = f"https://127.0.0.1:{listening.getsockname()[1]}"
        failure = await fail_in_time(make_api(url, timeout_seconds=TIMEOUT_SECONDS))
        await host
    assert failure.status == (200 if answered else None)


async def test_a_call_may_take_nearly_all_of_its_time(make_api: MakeApi) -> None:
    async def talk(visit: Visit) -> None:
        await visit.request()
        await asyncio.sleep(TIMEOUT_SECONDS)
        await visit.send(answer())

    async with RawHost(talk) as host:
        assert (await lock(make_api(host.url, timeout_seconds=10))).status == 200
