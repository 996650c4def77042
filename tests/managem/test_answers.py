"""What comes back when the host speaks HTTP."""

from __future__ import annotations

import asyncio
import gzip
import tracemalloc
import zlib
from typing import TYPE_CHECKING

import pytest

from tasks.managem.client import MAX_BODY_BYTES, Response
from tests.managem.client import MakeApi, fail_to_lock, lock
from tests.managem.raw_host import END_OF_HEAD, RawHost, Visit, answer, answering

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

TEXT = b'{"id": "c-1", "locked": true}' * 50


def bare_deflate(data: bytes) -> bytes:
    packer = zlib.compressobj(wbits=-15)
    return packer.compress(data) + packer.flush()


async def test_an_answer_is_its_status_its_body_and_its_retry_after(make_api: MakeApi) -> None:
    date = "Wed, 21 Oct 2026 07:28:00 GMT"
    async with RawHost(answering(answer("429 Too Many", b"slow down", f"retry-after: {date}"))) as host:
        assert await lock(make_api(host.url)) == Response(429, b"slow down", date)


async def test_a_body_that_is_no_json_passes_through(make_api: MakeApi) -> None:
    async with RawHost(answering(answer("200 OK", b"<html>\xff\x00", "Content-Type: text/html"))) as host:
        assert await lock(make_api(host.url)) == Response(200, b"<html>\xff\x00", None)


@pytest.mark.parametrize("status", [200, 204, 304, 404, 500, 599])
async def test_every_status_passes_through(make_api: MakeApi, status: int) -> None:
    async with RawHost(answering(f"HTTP/1.1 {status} Whatever\r\nContent-Length: 0\r\n\r\n".encode())) as host:
        assert await lock(make_api(host.url)) == Response(status, b"", None)


async def test_an_answer_without_a_body_leaves_the_connection_usable(make_api: MakeApi) -> None:
    async with RawHost(answering(b"HTTP/1.1 204 No Content\r\n\r\n")) as host:
        api = make_api(host.url)
        assert [(await lock(api)).status for _ in range(3)] == [204, 204, 204]
    assert host.connections == 1


async def test_interim_answers_are_skipped(make_api: MakeApi) -> None:
    interim = b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n"

    async def talk(visit: Visit) -> None:
        await visit.request()
        await visit.send(interim)
        await visit.send(answer("200 OK", b"real"))

    async with RawHost(talk) as host:
        assert await lock(make_api(host.url)) == Response(200, b"real", None)


async def test_a_body_may_come_in_chunks(make_api: MakeApi) -> None:
    chunked = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n4;x=y\r\ndefg\r\n0\r\n\r\n"
    async with RawHost(answering(chunked)) as host:
        api = make_api(host.url)
        assert await lock(api) == Response(200, b"abcdefg", None)
        assert await lock(api) == Response(200, b"abcdefg", None)
    assert host.connections == 1


async def test_a_body_may_end_with_the_connection(make_api: MakeApi) -> None:
    async def talk(visit: Visit) -> None:
        await visit.request()
        await visit.send(b"HTTP/1.0 200 OK\r\n\r\nall of it")

    async with RawHost(talk) as host:
        assert await lock(make_api(host.url)) == Response(200, b"all of it", None)


async def test_an_answer_may_come_byte_by_byte(make_api: MakeApi) -> None:
    async def talk(visit: Visit) -> None:
        await visit.request()
        for byte in answer("200 OK", b"slow", "Retry-After: 3"):
            await visit.send(bytes([byte]))

    async with RawHost(talk) as host:
        assert await lock(make_api(host.url)) == Response(200, b"slow", "3")


@pytest.mark.parametrize(
    ("encoding", "encoded"),
    [
        ("gzip", gzip.compress(TEXT, mtime=0)),
        ("x-gzip", gzip.compress(TEXT, mtime=0)),
        (" GZip ", gzip.compress(TEXT, mtime=0)),
        ("deflate", zlib.compress(TEXT)),
        ("deflate", bare_deflate(TEXT)),
        ("gzip", gzip.compress(TEXT[:40], mtime=0) + gzip.compress(TEXT[40:], mtime=0)),
        ("gzip", gzip.compress(TEXT, mtime=0) + bytes(512)),
        ("gzip, identity", gzip.compress(TEXT, mtime=0)),
        ("identity, gzip", gzip.compress(TEXT, mtime=0)),
        ("gzip, gzip", gzip.compress(gzip.compress(TEXT, mtime=0), mtime=0)),
        ("deflate, gzip", gzip.compress(zlib.compress(TEXT), mtime=0)),
        ("gzip\r\nContent-Encoding: deflate", zlib.compress(gzip.compress(TEXT, mtime=0))),
        (",gzip,,", gzip.compress(TEXT, mtime=0)),
        ("utf-8, gzip", gzip.compress(TEXT, mtime=0)),
        ("identity", TEXT),
        ("Identity, identity", TEXT),
        ("", TEXT),
        (" ", TEXT),
        ("none", TEXT),
        ("UTF-8", TEXT),
        ("application/json", TEXT),
        ("br", TEXT),
        ("zstd", TEXT),
    ],
)
async def test_a_content_encoding_is_undone_as_browsers_and_httpx_do(
    make_api: MakeApi, encoding: str, encoded: bytes
) -> None:
    async with RawHost(answering(answer("200 OK", encoded, f"Content-Encoding: {encoding}"))) as host:
        assert await lock(make_api(host.url)) == Response(200, TEXT, None)


async def test_an_empty_body_needs_no_decoding(make_api: MakeApi) -> None:
    async with RawHost(answering(answer("200 OK", b"", "Content-Encoding: gzip"))) as host:
        assert await lock(make_api(host.url)) == Response(200, b"", None)


@pytest.mark.parametrize("encoding", ["identity", "gzip", "deflate"])
async def test_a_body_of_just_the_limit_is_taken(make_api: MakeApi, encoding: str) -> None:
    body = bytes(range(256)) * (MAX_BODY_BYTES // 256)
    encoded = {"identity": body, "gzip": gzip.compress(body, 0, mtime=0), "deflate": zlib.compress(body, 9)}[encoding]
    async with RawHost(answering(answer("200 OK", encoded, f"Content-Encoding: {encoding}"))) as host:
        got = await lock(make_api(host.url))
    assert got.body == body


def answer_in_pieces(*pieces: bytes) -> Callable[[Visit], Awaitable[None]]:
    """Answer a request piece by piece, mostly in packets of their own; the client must be right either way."""

    async def talk(visit: Visit) -> None:
        await visit.request()
        for piece in pieces:
            await visit.send(piece)
            await asyncio.sleep(0.01)
        await visit.client_hangs_up()

    return talk


@pytest.mark.parametrize("status", ["200 OK", "404 Not Found", "403 Forbidden", "429 Too Many Requests"])
@pytest.mark.parametrize(
    "fields",
    [
        "X: " + "a" * 9_000,
        "X: " + "a" * 60_000,
        "a" * 9_000 + ": x",
        "\r\n".join(f"X-{number}: {number}" for number in range(150)),
        "\r\n".join(["X: a"] * 5_000),
        "\r\n".join(["Set-Cookie: " + "a" * 4_000] * 15),
    ],
    ids=["9 kB", "60 kB", "a name of 9 kB", "150", "5,000", "15 of 4 kB"],
)
async def test_a_large_head_is_an_answer_like_any_other(make_api: MakeApi, status: str, fields: str) -> None:
    async with RawHost(answering(answer(status, b"{}", fields, "Retry-After: 7"))) as host:
        api = make_api(host.url)
        assert await lock(api) == Response(int(status[:3]), b"{}", "7")
        assert await lock(api) == Response(int(status[:3]), b"{}", "7")
    assert host.connections == 1


async def test_a_long_reason_is_an_answer_like_any_other(make_api: MakeApi) -> None:
    async with RawHost(answering(answer("404 " + "N" * 20_000))) as host:
        assert (await lock(make_api(host.url))).status == 404


IN_CHUNKS = b"1a\r\n%b\r\n0\r\n\r\n"
LENGTH = b"Content-Length: 26"
CHUNKED = b"Transfer-Encoding: chunked"
#: Heads that break a rule, and what browsers or httpx make of them all the same.
ODD_HEADS = {
    "the length twice": [b"HTTP/1.1 200 OK", LENGTH, LENGTH],
    "the length twice in one": [b"HTTP/1.1 200 OK", LENGTH + b", 26"],
    "a length beside chunks": [b"HTTP/1.1 200 OK", b"Content-Length: 3", CHUNKED],
    "a length behind chunks": [b"HTTP/1.1 200 OK", CHUNKED, b"Content-Length: 300"],
    "a coding that is none": [b"HTTP/1.1 200 OK", b"Transfer-Encoding: identity", LENGTH],
    "a line that is no field": [b"HTTP/1.1 200 OK", b"nonsense", LENGTH],
    "a field without a name": [b"HTTP/1.1 200 OK", b": x", LENGTH],
    "a name that is none": [b"HTTP/1.1 200 OK", b"X Y: a", "Zürich: b".encode(), LENGTH],
    "a blank before a colon": [b"HTTP/1.1 200 OK", b"X : a", LENGTH],
    "a value that goes on": [b"HTTP/1.1 200 OK", b" x", b"X : a", b"  b", b"\tc", LENGTH],
    "half a line break": [b"HTTP/1.1 200 OK", b"X: a\rb", LENGTH],
    "another version": [b"HTTP/1.2 200 OK", LENGTH],
    "no second version": [b"HTTP/2 200", LENGTH],
    "small letters": [b"http/1.1 200 OK", LENGTH],
    "blanks": [b"HTTP/1.1 \t 200   OK", LENGTH],
    "a last interim answer": [b"HTTP/1.1 100 Continue", b"Connection: close", b"", b"HTTP/1.1 200 OK", LENGTH],
    "an interim answer of old": [b"HTTP/1.0 100 Continue", b"", b"HTTP/1.1 200 OK", LENGTH],
}


@pytest.mark.parametrize("in_packets", [False, True], ids=["at once", "byte by byte"])
@pytest.mark.parametrize("line_break", [b"\r\n", b"\n"], ids=["CRLF", "LF"])
@pytest.mark.parametrize("what", ODD_HEADS)
async def test_a_head_that_breaks_a_rule_is_understood_as_browsers_and_httpx_do(
    make_api: MakeApi, what: str, line_break: bytes, *, in_packets: bool
) -> None:
    body = IN_CHUNKS % b'{"id":"c-1","locked":true}' if CHUNKED in ODD_HEADS[what] else b'{"id":"c-1","locked":true}'
    whole = line_break.join([*ODD_HEADS[what], b"Retry-After: 7", b"", body])

    async def talk(visit: Visit) -> None:
        await visit.request()
        for piece in [whole[at : at + 1] for at in range(len(whole))] if in_packets else [whole]:
            await visit.send(piece)
        await visit.client_hangs_up()

    async with RawHost(talk) as host:
        api = make_api(host.url)
        for _ in range(2):
            assert await lock(api) == Response(200, b'{"id":"c-1","locked":true}', "7")
    assert host.connections == 2  # what a host means that breaks rules is not asked twice


@pytest.mark.parametrize("end_of_head", [b"\n\n", b"\r\n\n", b"\n\r\n"])
async def test_a_head_may_end_with_other_line_breaks_before_a_large_body(make_api: MakeApi, end_of_head: bytes) -> None:
    head = b"HTTP/1.1 200 OK\nContent-Length: 500000" + end_of_head
    async with RawHost(answering(head + bytes(500_000))) as host:
        api = make_api(host.url)
        for _ in range(2):
            assert await lock(api) == Response(200, bytes(500_000), None)
    assert host.connections == 1


@pytest.mark.parametrize("line_break", ["\r\n", "\n"])
@pytest.mark.parametrize("status", [200, 204, 304, 404])
async def test_half_an_answer_behind_one_without_a_body_does_not_begin_the_next(
    make_api: MakeApi, status: int, line_break: str
) -> None:
    lines = [f"HTTP/1.1 {status} X", "Content-Length: 0", "", "HTTP/1.1 403 Forbidden", "Content-Length: 0", "X: "]
    async with RawHost(answering(line_break.join(lines).encode(), answer("418 I'm a teapot"))) as host:
        api = make_api(host.url)
        assert (await lock(api)).status == status
        assert (await lock(api)).status == 418


BODIES_BEHIND = {
    "a body": b"Content-Length: 9\r\n\r\n{} or so.",
    "a body of unknown length": b"\r\n<html>not modified</html>",
    "chunks": b"Transfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n",
    "an announcement alone": b"Content-Length: 9\r\n\r\n",
}


@pytest.mark.parametrize("what", BODIES_BEHIND)
@pytest.mark.parametrize("status", [204, 304])
async def test_a_body_behind_an_answer_that_has_none_changes_nothing(make_api: MakeApi, status: int, what: str) -> None:
    async with RawHost(answering(b"HTTP/1.1 %d X\r\n%b" % (status, BODIES_BEHIND[what]))) as host:
        api = make_api(host.url)
        for _ in range(3):
            assert await lock(api) == Response(status, b"", None)


@pytest.mark.parametrize("status", [204, 304])
async def test_a_body_that_comes_late_is_not_taken_for_the_next_answer(make_api: MakeApi, status: int) -> None:
    head = b"HTTP/1.1 %d X\r\nContent-Length: 9\r\n\r\n" % status
    async with RawHost(answer_in_pieces(head, b"{} or so.")) as host:
        api = make_api(host.url)
        for _ in range(2):
            assert await lock(api) == Response(status, b"", None)


@pytest.mark.parametrize("cut", range(1, 5))
async def test_a_body_that_is_longer_than_announced_is_cut_where_that_says(make_api: MakeApi, cut: int) -> None:
    whole = answer("200 OK", b"{}") + b"more than announced"
    head = whole.index(END_OF_HEAD) + cut  # the end of the head comes in two packets
    async with RawHost(answer_in_pieces(whole[:head], whole[head:])) as host:
        assert await lock(make_api(host.url)) == Response(200, b"{}", None)


@pytest.mark.parametrize("status", ["403 Forbidden", "404 Not Found", "429 Too Many Requests", "503 Unavailable"])
async def test_a_status_counts_though_its_body_is_broken_from_the_first_byte(make_api: MakeApi, status: str) -> None:
    broken = f"HTTP/1.1 {status}\r\nRetry-After: 7\r\nTransfer-Encoding: chunked\r\n\r\nno chunk"
    async with RawHost(answering(broken.encode())) as host:
        assert await lock(make_api(host.url)) == Response(int(status[:3]), b"", "7")


BOMB = bytes(64 * MAX_BODY_BYTES)
PIECE = b"10000\r\n" + bytes(0x10000) + b"\r\n"
BAD_BODIES = {
    "too large": (f"Content-Length: {MAX_BODY_BYTES + 1}", bytes(MAX_BODY_BYTES + 1)),
    "too large, and said to be larger": ("Content-Length: 99999999999", bytes(2 * MAX_BODY_BYTES)),
    "too large, in chunks": ("Transfer-Encoding: chunked", PIECE * (2 * MAX_BODY_BYTES // 0x10000)),
    "too large, until the end": ("Connection: close", bytes(2 * MAX_BODY_BYTES)),
    "too large by a byte when inflated": ("Content-Encoding: gzip", gzip.compress(bytes(MAX_BODY_BYTES + 1), mtime=0)),
    "a bomb of gzip": ("Content-Encoding: gzip", gzip.compress(BOMB, mtime=0)),
    "a bomb of deflate": ("Content-Encoding: deflate", zlib.compress(BOMB)),
    "no gzip": ("Content-Encoding: gzip", b"no gzip"),
    "no deflate": ("Content-Encoding: deflate", b"no deflate"),
    "half a gzip": ("Content-Encoding: gzip", gzip.compress(TEXT, mtime=0)[:-9]),
    "half a gzip behind a whole one": ("Content-Encoding: gzip", 2 * gzip.compress(TEXT, mtime=0)[:-9]),
    "an encoding that was not asked for": ("Content-Encoding: br", b"\x0b\x02\x80{}\x03"),
    "a bomb in gzip in gzip": ("Content-Encoding: gzip, gzip", gzip.compress(gzip.compress(BOMB), mtime=0)),
    "gzip once where it should be twice": ("Content-Encoding: gzip, gzip", gzip.compress(TEXT, mtime=0)),
    "more encodings than anybody needs": ("Content-Encoding: " + "gzip," * 1_000, b"x"),
    "more members than anybody needs": ("Content-Encoding: gzip", gzip.compress(b"", mtime=0) * 50_000),
}


def bad_body(status: str, what: str) -> Callable[[Visit], Awaitable[None]]:
    header, body = BAD_BODIES[what]

    async def talk(visit: Visit) -> None:
        await visit.request()
        await visit.send(f"HTTP/1.1 {status}\r\nRetry-After: 7\r\n{header}".encode() + END_OF_HEAD + body)

    return talk


@pytest.mark.parametrize("what", BAD_BODIES)
async def test_a_success_with_a_body_that_cannot_be_had_is_unusable(make_api: MakeApi, what: str) -> None:
    async with RawHost(bad_body("200 OK", what)) as host:
        failure = await fail_to_lock(make_api(host.url))
    assert (failure.kind, failure.status) == ("unusable", 200)


@pytest.mark.parametrize("status", ["302 Found", "404 Not Found", "429 Too Many Requests", "503 Service Unavailable"])
@pytest.mark.parametrize("what", BAD_BODIES)
async def test_another_status_speaks_for_itself_when_its_body_cannot_be_had(
    make_api: MakeApi, status: str, what: str
) -> None:
    async with RawHost(bad_body(status, what)) as host:
        assert await lock(make_api(host.url)) == Response(int(status[:3]), b"", "7")


@pytest.mark.parametrize(
    "what", ["a bomb of gzip", "a bomb of deflate", "a bomb in gzip in gzip", "too large, and said to be larger"]
)
async def test_no_more_than_the_limit_of_a_body_is_ever_held(make_api: MakeApi, what: str) -> None:
    async with RawHost(bad_body("200 OK", what)) as host:
        api = make_api(host.url)
        tracemalloc.start()
        try:
            await fail_to_lock(api)
            _, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
    assert peak < 8 * MAX_BODY_BYTES


@pytest.mark.parametrize("endless", [b"X: %b\r\n" % (b"y" * 1_000), b"1;%b\r\n{\r\n" % (b"x" * 10_000)])
async def test_trailers_and_extensions_that_never_end_are_cut_off(make_api: MakeApi, endless: bytes) -> None:
    start = b"" if endless.startswith(b"1;") else b"0\r\n"

    async def talk(visit: Visit) -> None:
        await visit.request()
        await visit.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + start)
        while True:
            await visit.send(endless * 100)

    async with RawHost(talk) as host:
        failure = await fail_to_lock(make_api(host.url, timeout_seconds=20))
        await host.until(lambda: host.open_connections == 0, "the client has hung up")
    assert failure.kind == "unusable"


async def test_a_body_that_never_ends_is_cut_off_at_the_limit(make_api: MakeApi) -> None:
    async def talk(visit: Visit) -> None:
        await visit.request()
        await visit.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        while True:
            await visit.send(PIECE)

    async with RawHost(talk) as host:
        failure = await fail_to_lock(make_api(host.url))
        await host.until(lambda: host.open_connections == 0, "the client has hung up")
    assert (failure.kind, failure.status) == ("unusable", 200)
