"""The head of an answer that a strict parser refuses, written anew as browsers and httpx understand it.

A host may lock a conversation and then answer with a head that breaks a rule: a length that stands there twice, or
beside chunks, or a field that is none. Such an answer counts like any other; that its host is confused ends the
connection behind it, so that no later answer is read by a wrong length.
"""

from __future__ import annotations

import re

_STATUS_LINE = re.compile(rb"HTTP/([0-9])(?:\.[0-9])?[ \t]+([0-9]{3})(?![0-9])", re.IGNORECASE)
_LINE_BREAK = re.compile(rb"\r?\n")
_NAME = re.compile(rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
_HTTP_1_0 = b"HTTP/1.0"


def mended(head: bytes) -> bytes:
    """A head that means the same; what is no field of it is left out.

    Raises:
        ValueError: it begins with no HTTP status, or says two different lengths.
    """
    first, *lines = _LINE_BREAK.split(head.strip(b"\r\n"))
    begun = _STATUS_LINE.match(first)
    if begun is None:
        raise ValueError("no status line")
    fields = _fields(lines)
    codings = [coding.strip().lower() for coding in _values(fields, b"transfer-encoding")]
    lengths = {length.strip() for length in _values(fields, b"content-length")}
    kept = [(name, value) for name, value in fields if name.lower() not in {b"transfer-encoding", b"content-length"}]
    if b"chunked" in codings:
        kept.append((b"Transfer-Encoding", b"chunked"))  # it counts, whatever a length beside it says
    elif lengths:
        if len(lengths) > 1:
            raise ValueError("more than one length")
        kept.append((b"Content-Length", lengths.pop()))
    kept.append((b"Connection", b"close"))
    version = _HTTP_1_0 if first.upper().startswith(_HTTP_1_0) else b"HTTP/1.1"
    return b"".join([b"%s %s\r\n" % (version, begun[2]), *(b"%s: %s\r\n" % field for field in kept), b"\r\n"])


def _fields(lines: list[bytes]) -> list[tuple[bytes, bytes]]:
    fields: list[tuple[bytes, bytes]] = []
    for line in lines:
        if line[:1] in {b" ", b"\t"}:  # the rest of a value
            if fields:
                name, value = fields[-1]
                fields[-1] = name, b"%s %s" % (value, _value(line))
            continue
        name, colon, value = line.partition(b":")
        name = name.rstrip()
        if colon and _NAME.fullmatch(name):
            fields.append((name, _value(value)))
    return fields


def _value(text: bytes) -> bytes:
    return text.replace(b"\r", b" ").strip()


def _values(fields: list[tuple[bytes, bytes]], wanted: bytes) -> list[bytes]:
    """The members of all lists under this name."""
    return [member for name, value in fields if name.lower() == wanted for member in value.split(b",")]
