"""Calls the Managem API. Each call is one request with one of two results.

``ManagemApi.lock`` returns a :class:`Response` (the API answered) or raises :class:`CallFailedError` (no answer that
can be read). It raises nothing else, whatever the host, the network and the TLS layer do. No text of its errors
contains the token or anything that the host sent, because a host may echo the token.

Guaranteed: a call takes at most ``timeout_seconds``, from waiting for a connection to the last byte of the answer. It
follows no redirects, keeps no cookies, and reads no proxy variables and no netrc. It never holds or decompresses more
than about ``MAX_BODY_BYTES`` of an answer.

Not here: what an answer means (``tasks.verdict``), and when to try again (``tasks.retry``).
"""

from __future__ import annotations

import asyncio
import zlib
from contextlib import suppress
from dataclasses import dataclass
from http import HTTPStatus
from typing import TYPE_CHECKING, Final, Literal, TypeAlias
from urllib.parse import quote

import httpx

from tasks.managem.token import is_visible_ascii
from tasks.managem.transport import NoResourcesError, OneHostTransport

if TYPE_CHECKING:
    from collections.abc import Callable

    from tasks.managem.transport import Request, ResponseStream

MAX_BODY_BYTES: Final = 1024 * 1024
"""The largest body, after its content encoding is undone."""

_ENCODING_OVERHEAD_BYTES = 64 * 1024  # far more than gzip or deflate add to a body that does not compress
_GZIP, _ZLIB, _BARE = 16 + zlib.MAX_WBITS, zlib.MAX_WBITS, -zlib.MAX_WBITS
#: The ways to read each content coding. By the standard, "deflate" is a zlib stream; some servers send only the deflate
#: stream inside it.
_WINDOWS = {"gzip": [_GZIP], "x-gzip": [_GZIP], "deflate": [_ZLIB, _BARE]}
_NOT_SUPPORTED = {"br", "zstd", "compress", "x-compress", "dcb", "dcz"}
_GZIP_MEMBER = b"\x1f\x8b"
#: A gzip body may be several members in a row. Each costs time on the loop, and real answers have one or two.
_MAX_MEMBERS = 100
_MAX_CODINGS = 5
SUCCESS = range(200, 300)

_TOO_LARGE = f"The API's answer is larger than {MAX_BODY_BYTES} bytes."

Kind: TypeAlias = Literal["unreachable", "timeout", "unusable", "no_resources"]


@dataclass(frozen=True, slots=True)
class Response:
    """An answer of the API.

    Attributes:
        status: 200 to 599.
        body: the body without its content encoding. Empty if the status is not 2xx and the body could not be read (too
            large, cut short, too late, undecodable), because such a status is enough.
        retry_after: the header of that name, verbatim.
        date: the header ``Date``, verbatim: the time of the host's clock.
    """

    status: int
    body: bytes
    retry_after: str | None
    date: str | None = None


class CallFailedError(Exception):
    """The call brought no usable answer.

    Attributes:
        kind: ``unreachable``: no connection (DNS, refused, TLS), or it broke before the answer was complete;
            ``timeout``: the call as a whole took too long; ``unusable``: the answer is no HTTP, beyond the limits, or
            in a content encoding that cannot be undone; ``no_resources``: the worker itself lacks what a connection
            needs, such as a file descriptor.
        detail: a sentence for the operator on call.
        status: the status, if the head of an answer came. It is a 2xx; other statuses become a :class:`Response`.
        was_sent: the API may have received the request; False: there was no connection.
    """

    def __init__(self, kind: Kind, detail: str, status: int | None = None, *, was_sent: bool = True) -> None:
        super().__init__(detail)
        self.was_sent: Final = was_sent
        self.kind: Final = kind
        self.detail: Final = detail
        self.status: Final = status


class ManagemApi:
    """The API client of one process, for all its jobs.

    Args:
        base_url: the URL of the API; it may have a path, and has no user, query or fragment.
        token: returns the bearer token, in visible ASCII; called before each call.
        timeout_seconds: the time that a whole call may take.
        concurrency: how many calls may run at once; more have to wait, within their own time.
        user_agent: the header of that name.
    """

    def __init__(
        self, *, base_url: str, token: Callable[[], str], timeout_seconds: float, concurrency: int, user_agent: str
    ) -> None:
        url = httpx.URL(base_url)
        self._prefix = url.raw_path.rstrip(b"/")
        self._token = token
        self._refused_token: int | None = None
        self._timeout_seconds = timeout_seconds
        self._transport = OneHostTransport(
            origin=url.copy_with(raw_path=b"/"),
            fields=[
                (b"Accept", b"application/json"),
                # An answer is about a kilobyte: decompressing it would cost more than sending it uncompressed.
                (b"Accept-Encoding", b"identity"),
                (b"User-Agent", user_agent.encode("ascii")),
            ],
            connections=concurrency,
        )

    async def lock(
        self, conversation_id: str, *, idempotency_key: str, traceparent: str, tracestate: str | None = None
    ) -> Response:
        """Ask the API to lock a conversation.

        Args:
            conversation_id: any text but ``.`` and ``..``; it becomes one path segment.
            idempotency_key: the same for every attempt of a job; visible ASCII.
            traceparent: the W3C header.
            tracestate: the W3C header that belongs to it, if there is one.

        Raises:
            CallFailedError: there was no usable answer.
        """
        fields = [(b"Idempotency-Key", idempotency_key.encode("ascii")), (b"traceparent", traceparent.encode("ascii"))]
        if tracestate is not None:
            fields.append((b"tracestate", tracestate.encode("ascii")))
        request, token_hash = self._request(conversation_id, fields)
        reply: ResponseStream | None = None
        try:
            async with asyncio.timeout(self._timeout_seconds):
                reply = await self._transport.send(request)
                body = await _read(reply)
            if reply.status == HTTPStatus.UNAUTHORIZED:
                self._refused_token = token_hash
            return self._answer(reply, body)
        except Exception as error:  # noqa: BLE001 - callers see no other error than CallFailedError
            kind, detail, was_sent = self._what_failed(error, reply)
        # Raised outside of the handler, the error has no cause whose text could quote what the host sent.
        if reply is None:
            raise CallFailedError(kind, detail, was_sent=was_sent)
        if reply.status in SUCCESS:
            raise CallFailedError(kind, detail, reply.status)
        return self._answer(reply, b"")

    def token_is_new(self) -> bool:
        """Return True if the token is another one than the API refused last."""
        return self._refused_token is not None and hash(self._token()) != self._refused_token

    def _what_failed(self, error: Exception, reply: ResponseStream | None) -> tuple[Kind, str, bool]:
        """Return the kind and the detail of a failed call, and whether the API may have received the request."""
        match error:
            case TimeoutError():
                what = "answer" if reply is None else "complete answer"
                return "timeout", f"The API gave no {what} within {self._timeout_seconds:g} seconds.", True
            case NoResourcesError():
                return "no_resources", str(error), False
            case httpx.NetworkError():
                return "unreachable", str(error), not isinstance(error, httpx.ConnectError)
            case httpx.RequestError():
                return "unusable", str(error), True
            case _:
                return "unusable", f"The HTTP client failed with {type(error).__name__}.", True

    def _answer(self, reply: ResponseStream, body: bytes) -> Response:
        return Response(reply.status, body, reply.headers.get("Retry-After"), reply.headers.get("Date"))

    async def aclose(self) -> None:
        """Close all connections: calls in flight fail as ``unreachable``, and so do later ones."""
        await self._transport.aclose()

    def _request(self, conversation_id: str, fields: list[tuple[bytes, bytes]]) -> tuple[Request, int]:
        """Return a request and the hash of its token. The token itself stays out of the caller's frame."""
        token = self._token()
        if not is_visible_ascii(token):
            # Encoding the token would fail too, with an error that contains it.
            raise ValueError("the API token holds something else than visible ASCII")
        request = self._transport.request(
            b"%s/conversations/%s/lock" % (self._prefix, quote(conversation_id, safe="").encode("ascii")),
            [(b"Authorization", b"Bearer " + token.encode("ascii")), *fields],
        )
        return request, hash(token)


async def _read(reply: ResponseStream) -> bytes:
    """Read a body of at most ``MAX_BODY_BYTES``.

    Raises:
        httpx.ReadError: it is cut short.
        httpx.DecodingError: it is too large, or its content encoding cannot be undone.
    """
    pieces: list[bytes] = []
    size = 0
    try:
        codings = _codings(reply)
        max_bytes = MAX_BODY_BYTES + _ENCODING_OVERHEAD_BYTES if codings else MAX_BODY_BYTES
        while not reply.is_read:
            piece = await reply.read()
            size += len(piece)
            if size > max_bytes:
                raise httpx.DecodingError(_TOO_LARGE)
            pieces.append(piece)
    finally:
        reply.close()
    body = b"".join(pieces)
    for coding in reversed(codings):
        body = _undo(coding, body)
    if len(body) > MAX_BODY_BYTES:
        raise httpx.DecodingError(_TOO_LARGE)
    return body


def _codings(reply: ResponseStream) -> list[str]:
    """Return the content codings to undo, in the order in which they were applied.

    As in browsers and httpx, a name that is no content coding (``none``, ``utf-8``) is ignored.

    Raises:
        httpx.DecodingError: there are too many.
    """
    if "Content-Encoding" not in reply.headers:
        return []
    named = ",".join(reply.headers.getall("Content-Encoding")).lower().split(",")
    codings = [coding for name in named if (coding := name.strip()) in _WINDOWS or coding in _NOT_SUPPORTED]
    if len(codings) > _MAX_CODINGS:
        raise httpx.DecodingError(f"The API's answer is encoded more than {_MAX_CODINGS} times.")
    return codings


def _undo(coding: str, body: bytes) -> bytes:
    if coding in _NOT_SUPPORTED:
        if body[:1] == b"{":  # the header is wrong: this is plain JSON
            return body
        raise httpx.DecodingError("The API answered in a content encoding that it was not asked for.")
    if not body:
        return body
    first, *others = _WINDOWS[coding]
    try:
        return _inflated(body, first, coding)
    except zlib.error:
        for window in others:
            with suppress(zlib.error):
                return _inflated(body, window, coding)
    raise httpx.DecodingError(f"The API's answer is not the {coding} that it says it is.")


def _inflated(body: bytes, window: int, coding: str) -> bytes:
    max_bytes = MAX_BODY_BYTES + _ENCODING_OVERHEAD_BYTES
    plain = bytearray()
    for _ in range(_MAX_MEMBERS):
        inflater = zlib.decompressobj(window)
        plain += inflater.decompress(body, max_bytes + 1 - len(plain))
        if len(plain) > max_bytes:
            raise httpx.DecodingError(_TOO_LARGE)
        if not inflater.eof:
            raise httpx.DecodingError(f"The API's answer ends in the middle of its {coding}.")
        body = inflater.unused_data
        if window != _GZIP or not body.startswith(_GZIP_MEMBER):  # the end, or padding, which gzip ignores too
            return bytes(plain)
    raise httpx.DecodingError(f"The API's answer is {coding} of more than {_MAX_MEMBERS} members.")
