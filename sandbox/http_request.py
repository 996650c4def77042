"""Reads HTTP/1.1 requests from a buffer, and keeps the request target byte for byte.

It is as strict as the sandbox needs to be to show a client's mistakes, and no general server: no chunked request
bodies, no ``Expect``, and of a repeated header only the last counts.
"""

from __future__ import annotations

from dataclasses import dataclass
from http import HTTPStatus

HEAD_LIMIT = 65_536
BODY_LIMIT = 1 << 20

_REQUEST_LINE_WORDS = 3


@dataclass(frozen=True, slots=True)
class Request:
    """One request. Header names are in lower case; ``path`` is the target without its query, still percent-encoded."""

    method: str
    target: bytes
    headers: dict[bytes, bytes]
    body: bytes
    keep_alive: bool

    @property
    def path(self) -> bytes:
        """The target without its query."""
        return self.target.partition(b"?")[0]

    def header(self, name: bytes) -> str | None:
        """Return a header's value, or None when it was not sent."""
        value = self.headers.get(name)
        return None if value is None else value.decode("latin-1")


class BadRequestError(Exception):
    """The input is no request that can be answered; ``status`` says how to refuse it."""

    def __init__(self, status: HTTPStatus, detail: str) -> None:
        super().__init__(detail)
        self.status = status


def take_request(buffer: bytearray) -> Request | None:
    """Take one whole request from the front of the buffer; None, with nothing taken, until all of it has come.

    Raises:
        BadRequestError: the buffer starts with something that is no request, or too large a one.
    """
    head_length = buffer.find(b"\r\n\r\n")
    if head_length < 0 or head_length > HEAD_LIMIT:
        if len(buffer) > HEAD_LIMIT:
            raise BadRequestError(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE, "the head of the request is too large")
        return None
    request_line, *lines = bytes(buffer[:head_length]).split(b"\r\n")
    words = request_line.split(b" ")
    if len(words) != _REQUEST_LINE_WORDS or words[2] not in {b"HTTP/1.1", b"HTTP/1.0"}:
        raise BadRequestError(HTTPStatus.BAD_REQUEST, "the request line is not one of HTTP/1.1")
    headers = {}
    for line in lines:
        name, _, value = line.partition(b":")
        headers[name.lower()] = value.strip()
    body_start = head_length + 4
    body_end = body_start + _body_length(headers)
    if len(buffer) < body_end:
        return None
    body = bytes(buffer[body_start:body_end])
    del buffer[:body_end]
    connection = headers.get(b"connection", b"").lower()
    keep_alive = connection == b"keep-alive" if words[2] == b"HTTP/1.0" else connection != b"close"
    return Request(words[0].decode("latin-1"), words[1], headers, body, keep_alive)


def _body_length(headers: dict[bytes, bytes]) -> int:
    if b"transfer-encoding" in headers:
        raise BadRequestError(HTTPStatus.LENGTH_REQUIRED, "a chunked request body is not understood")
    value = headers.get(b"content-length", b"0")
    if not value.isdigit():
        raise BadRequestError(HTTPStatus.BAD_REQUEST, "Content-Length is no number")
    length = int(value)
    if length > BODY_LIMIT:
        raise BadRequestError(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, f"a body may have {BODY_LIMIT} bytes")
    return length
