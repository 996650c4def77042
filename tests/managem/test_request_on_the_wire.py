"""What the host receives, byte for byte."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tasks.managem.client import CallFailedError, ManagemApi
from tests.managem.client import TRACEPARENT, MakeApi, lock
from tests.managem.raw_host import RawHost, answer, answering

if TYPE_CHECKING:
    from pathlib import Path


def request_line(head: bytes) -> bytes:
    return head.split(b"\r\n", 1)[0]


async def test_a_request_is_these_bytes_and_no_others(make_api: MakeApi) -> None:
    async with RawHost(answering(answer())) as host:
        await make_api(host.url).lock("c-1", idempotency_key="job 7/a", traceparent=TRACEPARENT)
    assert host.requests == [
        b"POST /conversations/c-1/lock HTTP/1.1\r\n"
        b"Host: 127.0.0.1:%d\r\n"
        b"Accept: application/json\r\n"
        b"Accept-Encoding: identity\r\n"
        b"User-Agent: lock-worker/1.2.3\r\n"
        b"Content-Length: 0\r\n"
        b"Authorization: Bearer secret-token\r\n"
        b"Idempotency-Key: job 7/a\r\n"
        b"traceparent: %b\r\n\r\n" % (host.port, TRACEPARENT.encode())
    ]


async def test_the_producers_tracestate_is_one_more_header(make_api: MakeApi) -> None:
    async with RawHost(answering(answer())) as host:
        await make_api(host.url).lock("c-1", idempotency_key="k", traceparent=TRACEPARENT, tracestate="rojo=1,congo=2")
    assert host.requests[0].endswith(
        b"\r\ntraceparent: %b\r\ntracestate: rojo=1,congo=2\r\n\r\n" % TRACEPARENT.encode()
    )


@pytest.mark.parametrize(
    ("conversation_id", "segment"),
    [
        ("c-1", b"c-1"),
        ("a/b?c#d", b"a%2Fb%3Fc%23d"),
        ("%2E%2E", b"%252E%252E"),
        ("%2e%2e/%2f", b"%252e%252e%2F%252f"),
        ("...", b"..."),
        ("../..", b"..%2F.."),
        ("./", b".%2F"),
        ("~", b"~"),
        ("+", b"%2B"),
        (":", b"%3A"),
        ("a b ", b"a%20b%20"),
        ("é猫🐈", b"%C3%A9%E7%8C%AB%F0%9F%90%88"),
        ("//host/x", b"%2F%2Fhost%2Fx"),
        ("\\..\\", b"%5C..%5C"),
        ("@;,=&!$'()*[]|^`\"<>{}", b"%40%3B%2C%3D%26%21%24%27%28%29%2A%5B%5D%7C%5E%60%22%3C%3E%7B%7D"),
        ("x" * 256, b"x" * 256),
    ],
)
async def test_an_id_is_one_segment_of_the_path_whatever_it_holds(
    make_api: MakeApi, conversation_id: str, segment: bytes
) -> None:
    async with RawHost(answering(answer())) as host:
        await lock(make_api(host.url), conversation_id)
    assert request_line(host.requests[0]) == b"POST /conversations/%b/lock HTTP/1.1" % segment


@pytest.mark.parametrize(
    ("path", "sent"),
    [("", b""), ("/", b""), ("/v2", b"/v2"), ("/v2/", b"/v2"), ("/a%2Fb/ü", b"/a%2Fb/%C3%BC"), ("/v2//", b"/v2")],
)
async def test_the_path_of_the_base_url_comes_first(make_api: MakeApi, path: str, sent: bytes) -> None:
    async with RawHost(answering(answer())) as host:
        await lock(make_api(host.url + path))
    assert request_line(host.requests[0]) == b"POST %b/conversations/c-1/lock HTTP/1.1" % sent


async def test_the_token_is_asked_for_before_each_call() -> None:
    tokens = ["first", "second"]
    async with RawHost(answering(answer())) as host:
        api = ManagemApi(
            base_url=host.url, token=lambda: tokens.pop(0), timeout_seconds=5, concurrency=1, user_agent="lock-worker/0"
        )
        await lock(api)
        await lock(api)
        await api.aclose()
    assert b"\r\nAuthorization: Bearer first\r\n" in host.requests[0]
    assert b"\r\nAuthorization: Bearer second\r\n" in host.requests[1]


async def test_cookies_are_not_given_back(make_api: MakeApi) -> None:
    async with RawHost(answering(answer("200 OK", b"{}", "Set-Cookie: a=b; Path=/"))) as host:
        api = make_api(host.url)
        await lock(api)
        await lock(api)
    assert b"cookie" not in host.requests[1].lower()


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
async def test_a_redirect_is_an_answer_and_its_target_never_hears_of_it(make_api: MakeApi, status: int) -> None:
    async with RawHost(answering(answer())) as elsewhere:
        redirect = answer(f"{status} Moved", b"", f"Location: {elsewhere.url}/conversations/c-1/lock")
        async with RawHost(answering(redirect)) as host:
            got = await lock(make_api(host.url))
    assert got.status == status
    assert elsewhere.connections == 0


async def test_proxies_and_netrc_in_the_environment_are_not_used(
    make_api: MakeApi, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    netrc = tmp_path / "netrc"
    netrc.write_text("machine 127.0.0.1 login someone password something\n")
    netrc.chmod(0o600)
    monkeypatch.setenv("NETRC", str(netrc))
    monkeypatch.delenv("NO_PROXY", raising=False)
    monkeypatch.delenv("no_proxy", raising=False)
    async with RawHost(answering(answer("500 Proxy"))) as proxy, RawHost(answering(answer())) as host:
        for name in ("http_proxy", "https_proxy", "all_proxy"):
            monkeypatch.setenv(name, proxy.url)
            monkeypatch.setenv(name.upper(), proxy.url)
        got = await lock(make_api(host.url))
    assert got.status == 200
    assert proxy.connections == 0
    assert b"\r\nAuthorization: Bearer secret-token\r\n" in host.requests[0]


async def test_a_line_break_never_becomes_a_header_of_its_own(make_api: MakeApi) -> None:
    async with RawHost(answering(answer())) as host:
        api = make_api(host.url)
        for key in ("a\r\nX-Evil: 1", "a\nX-Evil: 1", "a\rX-Evil: 1"):
            with pytest.raises(CallFailedError, match="line break"):
                await api.lock("c-1", idempotency_key=key, traceparent=TRACEPARENT)
    assert host.requests == []
