"""The endpoint as documented, when nothing fails."""

from __future__ import annotations

import asyncio
import gc
import json
import socket
import ssl
from contextlib import suppress
from typing import TYPE_CHECKING

import aiohttp
import httpx
import pytest
import trustme

from sandbox.api import SandboxApi, run_in_thread
from tests.sandbox.raw_client import connected, lock, request, send, until_end

if TYPE_CHECKING:
    from pathlib import Path

USER_FIELDS = {
    "id",
    "username",
    "reviews",
    "rating",
    "score",
    "sales",
    "purchases",
    "joined",
    "avatar",
    "cover",
    "profile",
}


async def test_a_lock_is_answered_with_the_whole_documented_shape(sandbox_api: SandboxApi) -> None:
    async with httpx.AsyncClient() as client:
        answer = await client.post(f"{sandbox_api.url}/conversations/c-1/lock")

    body = answer.json()
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "application/json"
    assert body["id"] == "c-1"
    assert body["locked"] is True
    assert body.keys() == {
        "id",
        "source",
        "userA",
        "userB",
        "locked",
        "createdAt",
        "updatedAt",
        "lastMessage",
    }
    assert body["source"].keys() == {"type", "id"}
    assert body["source"]["type"] == "ORDER"
    assert body["userA"].keys() == body["userB"].keys() == body["lastMessage"]["sender"].keys() == USER_FIELDS
    assert body["lastMessage"].keys() == {
        "id",
        "conversationId",
        "sender",
        "body",
        "createdAt",
        "viewedAt",
        "attachments",
    }
    assert body["lastMessage"]["attachments"][0].keys() == {"id", "imageId", "url"}


async def test_a_conversation_is_always_answered_the_same(sandbox_api: SandboxApi) -> None:
    first, again, other = [(await send(sandbox_api, lock(name))).data for name in ("c-1", "c-1", "c-2")]

    assert first == again != other


@pytest.mark.parametrize(
    ("segment", "conversation_id"),
    [("c-1", "c-1"), ("a%2Fb%3Fc%23d", "a/b?c#d"), ("%E2%82%AC%20%25", "€ %"), ("a+b", "a+b"), ("%00", "\0")],
)
async def test_the_id_is_the_percent_decoded_segment(
    sandbox_api: SandboxApi, segment: str, conversation_id: str
) -> None:
    received = await send(sandbox_api, lock(segment))

    assert json.loads(received.data.split(b"\r\n\r\n")[1])["id"] == conversation_id
    assert sandbox_api.calls()[0].target == f"/conversations/{segment}/lock".encode()


@pytest.mark.parametrize(
    "target",
    [
        "/",
        "/conversations//lock",
        "/conversations/a/b/lock",
        "/conversations/a/lock/",
        "/conversations/a/unlock",
        "/conversations/a%zz/lock",
        "/conversations/%FF/lock",
        "/conversations/../lock",
        "/conversations/%2E%2e/lock",
        "/conversations/./lock",
    ],
)
async def test_a_path_that_is_not_exactly_one_segment_is_not_found(sandbox_api: SandboxApi, target: str) -> None:
    received = await send(sandbox_api, request(f"POST {target}", Connection="close"))

    assert received.data.startswith(b"HTTP/1.1 404 ")
    assert sandbox_api.calls()[0].conversation_id is None


async def test_another_method_is_not_allowed(sandbox_api: SandboxApi) -> None:
    received = await send(sandbox_api, request("GET /conversations/c-1/lock", Connection="close"))

    assert received.data.startswith(b"HTTP/1.1 405 ")
    assert b"\r\nAllow: POST\r\n" in received.data


async def test_one_connection_serves_many_requests_in_order(sandbox_api: SandboxApi) -> None:
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=1)) as session:
        for number in range(20):
            async with session.post(f"{sandbox_api.url}/conversations/c-{number}/lock") as answer:
                assert (await answer.json())["id"] == f"c-{number}"

    async with connected(sandbox_api) as (reader, writer):  # and pipelined
        writer.write(request("POST /conversations/p-1/lock") + request("POST /conversations/p-2/lock") + lock("p-3"))
        data = (await until_end(reader)).data
    assert data.index(b'"id":"p-1"') < data.index(b'"id":"p-2"') < data.index(b'"id":"p-3"')


async def test_a_request_may_come_byte_by_byte_and_with_a_body(sandbox_api: SandboxApi) -> None:
    async with connected(sandbox_api) as (reader, writer):
        for byte in lock("c-1", Content_Length="2") + b"{}":
            writer.write(bytes([byte]))
            await writer.drain()
        received = await until_end(reader)

    assert received.data.startswith(b"HTTP/1.1 200 OK\r\n")
    assert sandbox_api.calls()[0].body_size == 2


@pytest.mark.parametrize(
    ("sent", "status"),
    [
        (b"hello\r\n\r\n", 400),
        (b"GET / HTTP/2.0\r\n\r\n", 400),
        (request("POST /", Content_Length="many"), 400),
        (request("POST /", Transfer_Encoding="chunked"), 411),
        (request("POST /", Content_Length="99999999"), 413),
        (b"POST / HTTP/1.1\r\nX: " + b"a" * 70_000, 431),
    ],
)
async def test_what_is_no_request_is_refused_and_cut_off(sandbox_api: SandboxApi, sent: bytes, status: int) -> None:
    received = await send(sandbox_api, sent)

    assert received.data.startswith(b"HTTP/1.1 %d " % status)


@pytest.mark.parametrize(
    ("header", "status", "noted"),
    [
        ("Bearer right", 200, "right"),
        ("bearer right", 200, "right"),
        ("Bearer wrong", 401, "wrong"),
        ("right", 401, "wrong"),
        ("Basic right", 401, "wrong"),
    ],
)
async def test_only_the_configured_token_is_accepted(header: str, status: int, noted: str) -> None:
    async with SandboxApi(token="right") as api:
        received = await send(api, lock("c-1", Authorization=header))

    assert received.data.startswith(b"HTTP/1.1 %d " % status)
    assert api.calls()[0].authorization == noted


async def test_the_token_can_change_while_it_runs() -> None:
    async with SandboxApi(token="old") as api:
        assert (await send(api, lock("c-1"))).data.startswith(b"HTTP/1.1 401 ")
        api.token = "new"
        assert (await send(api, lock("c-1", Authorization="Bearer old"))).data.startswith(b"HTTP/1.1 401 ")
        assert (await send(api, lock("c-1", Authorization="Bearer new"))).data.startswith(b"HTTP/1.1 200 ")

    assert [call.authorization for call in api.calls()] == ["absent", "wrong", "right"]


async def test_while_stopped_it_refuses_and_afterwards_serves_on_the_same_port(sandbox_api: SandboxApi) -> None:
    port = sandbox_api.port
    async with connected(sandbox_api) as (reader, _):
        await sandbox_api.stop()
        assert (await until_end(reader)).data == b""
    with pytest.raises(ConnectionRefusedError):
        await send(sandbox_api, lock("c-1"))

    await sandbox_api.start()

    assert sandbox_api.port == port
    assert (await send(sandbox_api, lock("c-1"))).data.startswith(b"HTTP/1.1 200 ")


@pytest.mark.parametrize("turns", range(5))
async def test_a_connection_that_comes_in_the_moment_of_the_stop_is_closed_too(
    sandbox_api: SandboxApi, turns: int
) -> None:
    # given a connection that the event loop has come to know for so many of its turns
    with socket.create_connection(("127.0.0.1", sandbox_api.port), timeout=5) as client:
        for _ in range(turns):
            await asyncio.sleep(0)

        await sandbox_api.stop()

        # then it is cut off; that its socket was left to the garbage collector would be a warning, and so an error
        with suppress(ConnectionResetError):
            assert client.recv(1) == b""
    gc.collect()


async def test_it_speaks_tls(tmp_path: Path) -> None:
    authority = trustme.CA()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))

    async with (
        SandboxApi(ssl_context=context) as api,
        httpx.AsyncClient(verify=ssl.create_default_context(cafile=str(tmp_path / "ca.pem"))) as client,
    ):
        assert api.url.startswith("https://")
        assert (await client.post(f"{api.url}/conversations/c-1/lock")).status_code == 200
    async with SandboxApi(ssl_context=context) as api, httpx.AsyncClient() as client:
        with pytest.raises(httpx.ConnectError, match="CERTIFICATE_VERIFY_FAILED"):
            await client.post(f"{api.url}/conversations/c-1/lock")


def test_in_a_thread_it_serves_callers_without_a_loop() -> None:
    with run_in_thread(SandboxApi()) as api:
        assert httpx.post(f"{api.url}/conversations/c-1/lock").status_code == 200
        assert [call.conversation_id for call in api.calls()] == ["c-1"]

    with pytest.raises(httpx.ConnectError):
        httpx.post(f"{api.url}/conversations/c-1/lock")
