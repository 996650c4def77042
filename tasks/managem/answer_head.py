"""Repairs the head of an answer that a strict parser refuses, so that it means what browsers and httpx read in it.

A host may lock a conversation and then answer with a head that breaks a rule: two lengths, a length beside chunks, or
a line that is no field. Such an answer counts like any other. Its connection is closed afterwards, so that no later
answer is read with a wrong length.
"""

from __future__ import annotations

import re

_STATUS_LINE = re.compile(rb"HTTP/([0-9])(?:\.[0-9])?[ \t]+([0-9]{3})(?![0-9])", re.IGNORECASE)
_LINE_BREAK = re.compile(rb"\r?\n")
_NAME = re.compile(rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
_HTTP_1_0 = b"HTTP/1.0"


def repaired(head: bytes) -> bytes:
    """Return a valid head with the same meaning; lines that are no fields are left out.

    Raises:
        ValueError: it does not begin with an HTTP status, or has two different lengths.
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
        kept.append((b"Transfer-Encoding", b"chunked"))  # it overrides a length beside it
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
        if line[:1] in {b" ", b"\t"}:  # the continuation of a value
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


def _values(fields: list[tuple[bytes, bytes]], wanted_name: bytes) -> list[bytes]:
    """Return the members of all lists with this name."""
    return [member for name, value in fields if name.lower() == wanted_name for member in value.split(b",")]
