"""The network fails: no connection, or one that breaks before the answer is complete."""

from __future__ import annotations

import asyncio
import gc
import socket
import ssl

import pytest
import trustme
import uvloop

from tests.managem.client import MakeApi, fail_to_lock, lock, watch_heads
from tests.managem.raw_host import RawHost, Visit, answer, answering


def server_tls(authority: trustme.CA, name: str) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert(name).configure_cert(context)
    return context


async def test_nobody_listens(make_api: MakeApi) -> None:
    with socket.create_server(("127.0.0.1", 0)) as unused:
        port = unused.getsockname()[1]
    failure = await fail_to_lock(make_api(f"http://127.0.0.1:{port}"))
    assert (failure.kind, failure.status) == ("unreachable", None)
    assert f"127.0.0.1:{port}" in failure.detail


async def test_a_name_that_does_not_exist(make_api: MakeApi) -> None:
    failure = await fail_to_lock(make_api("http://nonexistent.invalid", timeout_seconds=20))
    assert (failure.kind, failure.status) == ("unreachable", None)
    assert failure.detail.startswith("DNS: the name of nonexistent.invalid cannot be resolved")


async def test_a_host_that_hangs_up_in_a_handshake_is_reported_as_such(make_api: MakeApi) -> None:
    async def hang_up(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(10_000)
        writer.close()

    async with await asyncio.start_server(hang_up, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        failure = await fail_to_lock(make_api(f"https://127.0.0.1:{port}"))
    assert (failure.kind, failure.was_sent) == ("unreachable", False)
    told = f"No connection to 127.0.0.1:{port}: it broke off the connection before it was open."
    assert failure.detail == told


async def test_a_certificate_for_another_host_is_reported_in_one_sentence(
    make_api: MakeApi, authority: trustme.CA
) -> None:
    async with RawHost(answering(answer()), tls=server_tls(authority, "other.example")) as host:
        failure = await fail_to_lock(make_api(host.url))
    assert failure.detail.endswith(": IP address mismatch, certificate is not valid for '127.0.0.1'.")


async def test_the_loop_turns_while_a_name_is_resolved(make_api: MakeApi, monkeypatch: pytest.MonkeyPatch) -> None:
    asked, may_answer = asyncio.Event(), asyncio.Event()

    async def slow(*_: object, **__: object) -> list[object]:
        asked.set()
        await may_answer.wait()
        raise socket.gaierror(socket.EAI_AGAIN, "try again")

    def blocking(*_: object, **__: object) -> list[object]:
        raise AssertionError("a name was resolved in a call that blocks the loop")

    monkeypatch.setattr(uvloop.Loop, "getaddrinfo", slow)
    monkeypatch.setattr(socket, "getaddrinfo", blocking)
    call = asyncio.create_task(fail_to_lock(make_api("http://slow.invalid")))
    await asyncio.wait_for(asked.wait(), 5)
    may_answer.set()
    assert (await call).kind == "unreachable"


async def test_an_address_of_the_sixth_version(make_api: MakeApi) -> None:
    try:
        host = RawHost(answering(answer()), address="::1")
        await host.__aenter__()
    except OSError:
        pytest.skip("this machine has no IPv6")
    try:
        assert (await lock(make_api(f"http://[::1]:{host.port}"))).status == 200
        assert b"\r\nHost: [::1]:%d\r\n" % host.port in host.requests[0]
    finally:
        await host.__aexit__(None, None, None)


async def test_a_certificate_of_a_trusted_authority_for_the_right_host_is_accepted(
    make_api: MakeApi, authority: trustme.CA
) -> None:
    async with RawHost(answering(answer()), tls=server_tls(authority, "127.0.0.1")) as host:
        api = make_api(host.url)
        assert (await lock(api)).status == 200
        assert (await lock(api)).status == 200
    assert host.connections == 1


async def test_a_certificate_for_another_host_is_not_accepted(make_api: MakeApi, authority: trustme.CA) -> None:
    async with RawHost(answering(answer()), tls=server_tls(authority, "other.example")) as host:
        failure = await fail_to_lock(make_api(host.url))
    assert failure.kind == "unreachable"
    assert failure.detail.startswith("TLS: the certificate of 127.0.0.1")
    assert "not valid for" in failure.detail
    assert host.requests == []


@pytest.mark.usefixtures("authority")
async def test_a_certificate_of_an_unknown_authority_is_not_accepted(make_api: MakeApi) -> None:
    async with RawHost(answering(answer()), tls=server_tls(trustme.CA(), "127.0.0.1")) as host:
        failure = await fail_to_lock(make_api(host.url))
    assert failure.kind == "unreachable"
    assert failure.detail.startswith("TLS: the certificate of 127.0.0.1")
    assert host.requests == []


async def test_a_host_that_speaks_no_tls(make_api: MakeApi) -> None:
    async def talk(visit: Visit) -> None:
        await visit.send(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        await visit.client_hangs_up()

    async with RawHost(talk) as host:
        failure = await fail_to_lock(make_api(host.url.replace("http:", "https:")))
    assert failure.kind == "unreachable"
    assert failure.detail.startswith("TLS: ")


HEAD = b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n"
CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
CUTS = {
    "before the request is read": (None, None),
    "before the answer": (b"", None),
    "in the status line": (b"HTTP/1.1 20", None),
    "in the headers": (b"HTTP/1.1 200 OK\r\nContent-Le", None),
    "before the body": (HEAD, 200),
    "in the body": (HEAD + b"12345", 200),
    "before the first chunk": (CHUNKED, 200),
    "in a chunk": (CHUNKED + b"5\r\n123", 200),
    "between chunks": (CHUNKED + b"5\r\n12345\r\n", 200),
    "before the last line of the chunks": (CHUNKED + b"5\r\n12345\r\n0\r\n", 200),
}


@pytest.mark.parametrize("how", ["hangs up", "resets"])
@pytest.mark.parametrize("when", CUTS)
async def test_the_host_breaks_off(make_api: MakeApi, caplog: pytest.LogCaptureFixture, how: str, when: str) -> None:
    sent, status = CUTS[when]

    async def talk(visit: Visit) -> None:
        if sent is not None:
            await visit.request()
            await visit.send(sent)
        if status is not None:
            await head_taken.wait()  # a RST would overtake the head
        if how == "resets":
            visit.reset()

    async with RawHost(talk) as host:
        api = make_api(host.url)
        head_taken = watch_heads(api)
        failure = await fail_to_lock(api)
    assert (failure.kind, failure.status) == ("unreachable", status)
    assert f"127.0.0.1:{host.port}" in failure.detail
    gc.collect()
    assert caplog.text == ""  # asyncio has nothing to complain of
