"""Each fault as it arrives on a raw socket."""

from __future__ import annotations

import asyncio
import gc
import json
import tracemalloc
import weakref
import zlib
from typing import TYPE_CHECKING, Literal

import httpx
import pytest

from sandbox.faults import (
    Delay,
    Drip,
    Drop,
    Fault,
    GarbageStatusLine,
    GzipBomb,
    HugeHeaders,
    Oversized,
    Respond,
    WrongBody,
    Wrongness,
)
from sandbox.script import Rule, Script
from tests.sandbox.raw_client import Received, connected, lock, request, send, until, until_end

if TYPE_CHECKING:
    from sandbox.api import SandboxApi


async def play(api: SandboxApi, fault: Fault) -> Received:
    api.script = Script(rules=(Rule(then=fault),))
    return await send(api, lock("c-1"))


def split(data: bytes) -> tuple[bytes, bytes]:
    head, _, body = data.partition(b"\r\n\r\n")
    return head + b"\r\n", body


def unchunked(body: bytes) -> bytes:
    plain = b""
    while True:
        size, _, body = body.partition(b"\r\n")
        length = int(size, 16)
        if not length:
            assert body == b"\r\n"
            return plain
        plain += body[:length]
        assert body[length : length + 2] == b"\r\n"
        body = body[length + 2 :]


async def test_a_status_comes_with_its_headers_and_body_verbatim(sandbox_api: SandboxApi) -> None:
    fault = Respond(
        status=429, headers={"Retry-After": " soon; -5", "X-Other": "ü"}, body="<b>no</b>", content_type="text/html"
    )

    head, body = split((await play(sandbox_api, fault)).data)

    assert head.startswith(b"HTTP/1.1 429 Too Many Requests\r\n")
    assert b"\r\nRetry-After:  soon; -5\r\n" in head
    assert "\r\nX-Other: ü\r\n".encode() in head
    assert b"\r\nContent-Type: text/html\r\n" in head
    assert body == b"<b>no</b>"
    assert sandbox_api.calls()[0].answer == "429"


async def test_a_status_without_a_body_brings_a_fitting_one(sandbox_api: SandboxApi) -> None:
    assert json.loads(split((await play(sandbox_api, Respond(status=503))).data)[1]) == {
        "message": "Service Unavailable"
    }
    assert json.loads(split((await play(sandbox_api, Respond(status=201))).data)[1])["locked"] is True
    assert split((await play(sandbox_api, Respond(status=204))).data)[1] == b""


@pytest.mark.parametrize("status", [301, 302, 307, 308])
async def test_a_redirect_leads_where_the_script_says(sandbox_api: SandboxApi, status: int) -> None:
    sandbox_api.script = Script(
        rules=(Rule(id="from", then=Respond(status=status, headers={"Location": "/conversations/to/lock"})),)
    )

    async with httpx.AsyncClient(follow_redirects=True) as client:
        answer = await client.post(f"{sandbox_api.url}/conversations/from/lock")

    assert answer.history[0].status_code == status
    assert answer.url.path == "/conversations/to/lock"


async def test_a_delay_comes_before_the_answer(sandbox_api: SandboxApi) -> None:
    await play(sandbox_api, Delay(ms=30))

    call = sandbox_api.calls()[0]
    assert call.ended_monotonic is not None
    assert call.ended_monotonic - call.at_monotonic >= 0.03


async def test_a_client_that_leaves_during_a_delay_is_noted(sandbox_api: SandboxApi) -> None:
    sandbox_api.script = Script(rules=(Rule(then=Delay(ms=3_600_000)),))
    async with connected(sandbox_api) as (_, writer):
        writer.write(lock("c-1"))
        await until(lambda: sandbox_api.stats()["in_flight"] == 1, "the call is under way")

        connection = weakref.ref(next(iter(sandbox_api._connections)))

    await until(lambda: sandbox_api.stats()["in_flight"] == 0, "the server noticed")
    assert sandbox_api.calls()[0].ended_monotonic is None
    gc.collect()
    assert connection() is None  # no timer holds it for the rest of the hour


async def test_a_request_that_comes_during_a_delay_does_not_cut_it_short(sandbox_api: SandboxApi) -> None:
    sandbox_api.script = Script(rules=(Rule(then=Delay(ms=50)),))

    async with connected(sandbox_api) as (reader, writer):
        writer.write(request("POST /conversations/c-1/lock"))
        await until(lambda: sandbox_api.stats()["in_flight"] == 1, "the first call is under way")
        writer.write(lock("c-2"))
        await until_end(reader)

    for call in sandbox_api.calls():
        assert call.ended_monotonic is not None
        assert call.ended_monotonic - call.at_monotonic >= 0.05


@pytest.mark.parametrize("reset", [False, True])
async def test_a_connection_drops_after_the_request(sandbox_api: SandboxApi, *, reset: bool) -> None:
    received = await play(sandbox_api, Drop(at="request", reset=reset))

    assert received == Received(b"", "rst" if reset else "fin")
    assert sandbox_api.calls()[0].answer == "drop:request"


@pytest.mark.parametrize("reset", [False, True])
async def test_a_connection_drops_in_the_middle_of_the_head(sandbox_api: SandboxApi, *, reset: bool) -> None:
    received = await play(sandbox_api, Drop(at="headers", reset=reset))

    assert received.data.startswith(b"HTTP/1.1 200 OK\r\n")
    assert b"\r\n\r\n" not in received.data
    assert received.end == ("rst" if reset else "fin")


@pytest.mark.parametrize("reset", [False, True])
async def test_a_body_is_cut_off_short_of_what_its_length_promised(sandbox_api: SandboxApi, *, reset: bool) -> None:
    received = await play(sandbox_api, Drop(at="body", reset=reset))

    head, body = split(received.data)
    promised = int(head.partition(b"Content-Length: ")[2].partition(b"\r\n")[0])
    assert 0 < len(body) < promised
    assert received.end == ("rst" if reset else "fin")


@pytest.mark.parametrize("reset", [False, True])
async def test_a_keep_alive_connection_closes_unannounced_after_its_answer(
    sandbox_api: SandboxApi, *, reset: bool
) -> None:
    sandbox_api.script = Script(rules=(Rule(then=Drop(at="after_answer", reset=reset)),))

    received = await send(sandbox_api, request("POST /conversations/c-1/lock"))

    head, body = split(received.data)
    assert b"Connection:" not in head
    assert json.loads(body)["locked"] is True
    assert received.end == ("rst" if reset else "fin")


@pytest.mark.parametrize("reset", [False, True])
async def test_a_connection_drops_at_the_accept(sandbox_api: SandboxApi, *, reset: bool) -> None:
    sandbox_api.script = Script(rules=(Rule(then=Drop(at="accept", reset=reset), times=1),))

    async with connected(sandbox_api) as (reader, _):
        assert await until_end(reader) == Received(b"", "rst" if reset else "fin")

    assert sandbox_api.calls() == []
    assert sandbox_api.stats()["answers"] == {"drop:accept": 1}
    assert (await send(sandbox_api, lock("c-1"))).data.startswith(b"HTTP/1.1 200 ")


@pytest.mark.parametrize("part", ["head", "body"])
async def test_a_drip_of_some_bytes_ends_in_the_right_answer(
    sandbox_api: SandboxApi, part: Literal["head", "body"]
) -> None:
    sandbox_api.script = Script(rules=(Rule(then=Drip(every_ms=2, size=5, part=part)),))

    async with httpx.AsyncClient() as client:
        answer = await client.post(f"{sandbox_api.url}/conversations/c-1/lock")

    assert answer.json()["locked"] is True
    assert answer.headers.get("X-Drip") == ("aaaaa" if part == "head" else None)
    assert answer.text.startswith(" " * (5 if part == "body" else 0) + "{")
    call = sandbox_api.calls()[0]
    assert call.ended_monotonic is not None
    assert call.ended_monotonic - call.at_monotonic >= 0.01


@pytest.mark.parametrize("part", ["head", "body"])
async def test_a_drip_goes_on_until_the_client_leaves(sandbox_api: SandboxApi, part: Literal["head", "body"]) -> None:
    sandbox_api.script = Script(rules=(Rule(then=Drip(every_ms=1, part=part)),))

    async with connected(sandbox_api) as (reader, writer):
        writer.write(lock("c-1"))
        await reader.readuntil(b"aaaaa" if part == "head" else b"1\r\n \r\n" * 5)
        assert sandbox_api.stats()["in_flight"] == 1

    await until(lambda: sandbox_api.stats()["in_flight"] == 0, "the server noticed that the client left")
    assert sandbox_api.calls()[0].ended_monotonic is None


@pytest.mark.parametrize("chunked", [False, True])
async def test_an_oversized_answer_is_right_but_for_its_size(sandbox_api: SandboxApi, *, chunked: bool) -> None:
    head, body = split((await play(sandbox_api, Oversized(size=3_000_000, chunked=chunked))).data)

    assert (b"\r\nContent-Length: %d\r\n" % len(body) in head) is not chunked
    answer = json.loads(unchunked(body) if chunked else body)
    assert answer["id"] == "c-1"
    assert answer["locked"] is True
    assert len(answer["padding"]) == 3_000_000


async def test_an_answer_of_gigabytes_needs_no_memory_while_the_client_does_not_read(sandbox_api: SandboxApi) -> None:
    sandbox_api.script = Script(rules=(Rule(then=Oversized(size=4 << 30)),))
    tracemalloc.start()
    try:
        async with connected(sandbox_api) as (reader, writer):
            writer.write(lock("c-1"))
            await reader.readexactly(65_536)
            for _ in range(2_000):  # turns of the loop, each enough for a piece of 64 KiB
                await asyncio.sleep(0)
            _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()

    assert peak < 4 << 20
    await until(lambda: sandbox_api.stats()["in_flight"] == 0, "the server noticed that the client left")


async def test_a_gzip_bomb_is_small_on_the_wire(sandbox_api: SandboxApi) -> None:
    head, body = split((await play(sandbox_api, GzipBomb(size=20_000_000))).data)

    assert b"\r\nContent-Encoding: gzip\r\n" in head
    assert len(body) < 50_000
    answer = json.loads(zlib.decompress(unchunked(body), wbits=zlib.MAX_WBITS + 16))
    assert answer["locked"] is True
    assert len(answer["padding"]) == 20_000_000


@pytest.mark.parametrize(
    ("what", "body"),
    [
        ("empty", b""),
        ("not_json", b"<html><body>It works!</body></html>"),
        ("not_utf8", b'{"id": "\xff\xfe", "locked": true}'),
    ],
)
async def test_a_wrong_body_may_be_no_json(sandbox_api: SandboxApi, what: Wrongness, body: bytes) -> None:
    head, came = split((await play(sandbox_api, WrongBody(what=what))).data)

    assert head.startswith(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n")
    assert came == body


async def test_a_wrong_body_may_not_confirm_the_lock(sandbox_api: SandboxApi) -> None:
    async def body(what: Wrongness) -> dict[str, object]:
        parsed = json.loads(split((await play(sandbox_api, WrongBody(what=what))).data)[1])
        assert isinstance(parsed, dict)
        return parsed

    assert (await body("other_id"))["id"] == "c-1-other"
    assert "id" not in await body("id_missing")
    assert (await body("locked_false"))["locked"] is False
    assert "locked" not in await body("locked_missing")
    assert isinstance(json.loads(split((await play(sandbox_api, WrongBody(what="array"))).data)[1]), list)


async def test_a_wrong_body_may_only_stray_from_the_documented_shape(sandbox_api: SandboxApi) -> None:
    right = json.loads(split((await send(sandbox_api, lock("c-1"))).data)[1])
    what: Wrongness
    for what in ("extra_fields", "unknown_enum", "nulls"):
        body = json.loads(split((await play(sandbox_api, WrongBody(what=what))).data)[1])
        assert body["id"] == "c-1"
        assert body["locked"] is True
        assert body != right


async def test_a_garbage_status_line_is_no_http(sandbox_api: SandboxApi) -> None:
    sandbox_api.script = Script(rules=(Rule(then=GarbageStatusLine()),))

    async with httpx.AsyncClient() as client:
        with pytest.raises(httpx.RemoteProtocolError):
            await client.post(f"{sandbox_api.url}/conversations/c-1/lock")


async def test_huge_headers_come_before_a_right_answer(sandbox_api: SandboxApi) -> None:
    head, body = split((await play(sandbox_api, HugeHeaders(size=300_000))).data)

    assert b"\r\nX-Huge: " + b"a" * 300_000 + b"\r\n" in head
    assert json.loads(body)["locked"] is True
