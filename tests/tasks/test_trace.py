"""W3C Trace Context: what is read of a producer's headers, and one trace for all of a job."""

from __future__ import annotations

import re
from typing import Any

import pytest

from tasks import trace

ID, SPAN = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
PARENT = f"00-{ID}-{SPAN}-01"
KEY = ("moderation.lock", "take-1.1.1")


@pytest.mark.parametrize(
    ("sent", "read"),
    [
        (PARENT, PARENT),
        (f"00-{ID}-{SPAN}-00", f"00-{ID}-{SPAN}-00"),
        (f"01-{ID}-{SPAN}-01", PARENT),
        (f"01-{ID}-{SPAN}-01-what-the-future-brings", PARENT),
        (f"fe-{ID}-{SPAN}-01-", PARENT),
        (f"00-{ID}-{SPAN}-ff", PARENT),
        (f"00-{ID}-{SPAN}-03", PARENT),
        (f"00-{ID}-{SPAN}-fe", f"00-{ID}-{SPAN}-00"),
        (f"cc-{ID}-{SPAN}-02", f"00-{ID}-{SPAN}-00"),
    ],
)
def test_later_versions_are_read_as_the_first_one_and_flags_that_it_does_not_know_are_cleared(
    sent: str, read: str
) -> None:
    assert trace.read({"traceparent": sent}) == (read, None)


@pytest.mark.parametrize(
    "sent",
    [
        None, 7, [PARENT], {}, "", "00", PARENT.upper(), PARENT[:-1],
        f"{PARENT}0", f"{PARENT}-01", f"{PARENT}\n", f" {PARENT}",
        f"01-{ID}-{SPAN}-01x", f"ff-{ID}-{SPAN}-01", f"0-{ID}-{SPAN}-01", f"00-{ID}-{SPAN}-0x",
        f"00-{ID[1:]}-{SPAN}-01",
        f"00-{'0' * 32}-{SPAN}-01", f"00-{ID}-{'0' * 16}-01", "x" * 1_000_000,
    ],
    ids=lambda sent: str(sent)[:60],
)  # fmt: skip
def test_a_malformed_traceparent_is_dropped_and_its_tracestate_with_it(sent: Any) -> None:
    assert trace.read({"traceparent": sent, "tracestate": "a=1"}) == (None, None)


@pytest.mark.parametrize(
    ("sent", "read"),
    [
        ("rojo=00f067aa0ba902b7", "rojo=00f067aa0ba902b7"),
        ("rojo=1,congo=t61rcWkgMzE", "rojo=1,congo=t61rcWkgMzE"),
        ("rojo=1 , \tcongo=2,,", "rojo=1,congo=2"),
        ("fw529a3039@dt=FfAAAAA,0tenant@sys=x", "fw529a3039@dt=FfAAAAA,0tenant@sys=x"),
        ("a_-*/9=~!", "a_-*/9=~!"),
        (",".join(f"k{number}=v" for number in range(40)), ",".join(f"k{number}=v" for number in range(32))),
        ("a=" + "x" * 250 + ",b=" + "y" * 250 + ",c=" + "z" * 250, "a=" + "x" * 250 + ",b=" + "y" * 250),
        ("a=" + "x" * 256 + ",b=" + "y" * 251, "a=" + "x" * 256 + ",b=" + "y" * 251),
        (None, None),
        ("", None),
        (" , ", None),
        ("A=1", None),
        ("a", None),
        ("a=1,b", None),
        ("a=", None),
        ("a==", None),
        ("a=é", None),
        ("a=1\r\nX-Evil: 1", None),
        ("a=\0", None),
        ("a=" + "x" * 257, None),
        (["a=1"], None),
        (7, None),
    ],
)
def test_a_tracestate_is_kept_where_a_header_can_carry_it(sent: Any, read: str | None) -> None:
    assert trace.read({"traceparent": PARENT, "tracestate": sent}) == (PARENT, read)


def test_trace_headers_are_found_where_tracing_libraries_put_them() -> None:
    inner = {"traceparent": PARENT, "tracestate": "a=1"}
    for headers in (inner, {"headers": inner}, {"traceparent": None, "headers": inner}):
        assert trace.read(headers) == (PARENT, "a=1")
    for elsewhere in (None, [inner], {"headers": inner}):
        assert trace.read({"headers": elsewhere}) == (None, None)


def test_a_job_has_the_producers_trace_and_each_call_a_span_of_its_own_in_it() -> None:
    found = trace.of_job(PARENT, "a=1", KEY)
    calls = [found.call_begins() for _ in range(100)]
    assert found.state == "a=1"
    for header in (*calls, found.traceparent):
        assert re.fullmatch(f"00-{ID}-[0-9a-f]{{16}}-01", header)
    assert len({SPAN, found.span_id, *(call.split("-")[2] for call in calls)}) == 102


def test_a_job_without_a_trace_gets_an_unsampled_one_that_is_the_same_in_each_delivery() -> None:
    found, again, other = (
        trace.of_job(None, None, KEY),
        trace.of_job(None, None, KEY),
        trace.of_job(None, None, ("q", "r")),
    )
    assert found == again
    assert re.fullmatch("00-[0-9a-f]{32}-[0-9a-f]{16}-00", found.traceparent)
    assert len({found.trace_id, other.trace_id}) == len({found.span_id, other.span_id}) == 2
    assert found.state is None
