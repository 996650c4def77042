"""The JSON of an answer is told as it came; what cannot be is replaced in its place, and that is noted."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sandbox.conversation import as_json, conversation
from tasks.managem.answer_json import MAX_NOTES, read
from tasks.verbatim import Verbatim

ID = "c-1"
HALVES = {
    "the first half of an emoji": b"\\ud83d",
    "the second half": b"\\uDE00",
    "both in the wrong order": b"\\ude00\\ud83d",
    "a name cut off in its bytes": "é".encode()[:1],
    "half an emoji in bytes": b"\xed\xa0\xbd",
    "no UTF-8 at all": b"\xff\xfe",
}


def body(**fields: Any) -> bytes:
    return as_json({"id": ID, "locked": True, **fields})


def raw(members: str | bytes) -> bytes:
    """An answer with these further members, as they are."""
    return b'{"id":"c-1","locked":true,' + (members.encode() if isinstance(members, str) else members) + b"}"


@pytest.mark.parametrize(
    "data",
    [
        as_json(conversation(ID)),
        json.dumps(conversation(ID)).encode(),
        json.dumps(conversation(ID), indent=2).encode(),
        json.dumps(conversation(ID), ensure_ascii=False).encode(),
        as_json(conversation(ID)).replace(b"/", b"\\/"),
        b"\xef\xbb\xbf" + as_json(conversation(ID)),
        json.dumps(conversation(ID)).encode("utf-16"),
        json.dumps(dict(reversed(conversation(ID).items()))).encode(),
    ],
    ids=["compact", "in ASCII", "indented", "with spaces", "slashes escaped", "with a mark", "UTF-16", "id last"],
)
def test_an_answer_is_read_as_it_came_however_its_json_is_written(data: bytes) -> None:
    found = read(data, ID)
    assert found.value == json.loads(found.json) == conversation(ID)
    assert (found.notes, found.is_verbatim, found.doubtful) == ((), False, frozenset())


@pytest.mark.parametrize("what", HALVES)
@pytest.mark.parametrize("place", ["a name", "the end of a name", "the key of a name", "a list"])
def test_half_a_character_is_reported_as_a_replacement_character_and_all_the_rest_as_it_came(
    what: str, place: str
) -> None:
    half = HALVES[what]
    members = {
        "a name": b'"userA":{"username":"x%by","rating":4.5},"n":1',
        "the end of a name": b'"userA":{"username":"x%b","rating":4.5},"n":1',
        "the key of a name": b'"userA":{"x%b":"y","rating":4.5},"n":1',
        "a list": b'"userA":[["x%b"],4.5],"n":1',
    }[place]
    found = read(raw(members % half), ID)

    text = found.json.decode()  # it is UTF-8
    assert json.loads(text) == found.value
    assert (found.value["id"], found.value["locked"], found.value["n"]) == (ID, True, 1)
    assert "x\ufffd" in text
    assert "4.5" in text
    assert found.doubtful <= {"userA"}
    (note,) = found.notes
    assert note.startswith("userA")
    assert note.endswith(": held half a character, told as U+FFFD")
    assert "x" not in note


@pytest.mark.parametrize(
    "number",
    [
        "19.990000000000000001", "1e-400", "-1e-400", "1E400", "123456789012345678.12", "0.10000000000000001",
        "9007199254740993.0", "12345678901234567890e-3", "4.9406564584124654e-324", "1e-9999999999999999999999",
        "0.1000000000000000055511151231257827", "3.14159265358979323846264338327950288",
    ],
)  # fmt: skip
def test_a_number_that_a_double_does_not_keep_comes_back_as_it_was_written(number: str) -> None:
    for form in ('"n":%s', '"n": %s ', '"n":[%s,1]', '"n":[1,{"m":%s}],"text":"é\\/"', '"userA":{"rating":%s}'):
        found = read(raw(form % number), ID)
        assert number.encode() in found.json
        assert found.is_verbatim
        assert float(number) in _numbers(found.value)


@pytest.mark.parametrize(
    "number",
    ["4.5", "4.50", "1e5", "1E+5", "0", "-0.0", "1e22", "1e23", "5e-324", "0.1", "1.7976931348623157e308", "2.5e-300"],
)
def test_a_number_that_a_double_keeps_is_a_plain_number(number: str) -> None:
    found = read(raw(f'"n":{number}'), ID)
    assert not found.is_verbatim
    assert json.loads(found.json)["n"] == found.value["n"] == float(number)
    assert not isinstance(found.value["n"], Verbatim)


def test_an_integer_of_any_size_that_readers_take_comes_back() -> None:
    assert b"7" * 4_300 in read(raw(b'"n":' + b"7" * 4_300), ID).json


def test_an_integer_that_no_reader_would_take_is_left_out_and_the_lock_is_not() -> None:
    found = read(raw(b'"n":' + b"7" * 5_000), ID)
    assert found.value == {"id": ID, "locked": True, "n": None}
    assert found.notes == ("conversation: held an integer of over 4,300 digits, told as null",)


@pytest.mark.parametrize(
    ("data", "doubtful"),
    [
        (b'{"id":"c-1","locked":false,"locked":true}', {"locked"}),
        (b'{"id":"c-1","locked":true,"locked":false}', {"locked"}),
        (b'{"id":"c-1","locked":1,"locked":true}', {"locked"}),
        (b'{"id":"c-1", "locked": true, "locked": null}', {"locked"}),
        (b'{"id":"c-1","locked":false,"l\\u006fcked":true}', {"locked"}),
        (b'{"id":"c-1","locked":true,"locked":true}', set()),
        (b'{"id":"c-2","id":"c-1","locked":true}', {"id"}),
        (b'{"id":"c-1","id":"c-2","id":"c-1","locked":true}', {"id"}),
        (b'{"id":"c-2","source":{"id":"c-1"},"locked":true,"id":"c-1"}', {"id"}),
        (b'{"i\\u0064":"c-2","id":"c-1","locked":true}', {"id"}),
        (b'{"id":"c-1","locked":true,"source":{"id":"o","id":"p","locked":false}}', set()),
        (b'{"source":{"id":"o"},"id":"c-1","locked":true}', set()),
    ],
)
def test_a_name_that_is_there_twice_with_different_values_is_doubtful(data: bytes, doubtful: set[str]) -> None:
    assert read(data, ID).doubtful == doubtful


def test_a_name_that_is_there_twice_elsewhere_is_noted_where_it_is_seen() -> None:
    found = read(b'{"id":"c-1","locked":true,"locked":true,"userA":1,"userA":2,"Mo":1,"Mo":2}', ID)
    assert found.value == {"id": ID, "locked": True, "userA": 2, "Mo": 2}
    assert found.notes == tuple(
        f"{name}: stands there twice, and the last one is told" for name in ("locked", "userA", "*")
    )


def test_an_id_that_is_right_only_after_a_replacement_is_doubtful() -> None:
    assert read(b'{"id":"c-\\ud800","locked":true}', "c-\ufffd").doubtful == {"id"}


@pytest.mark.parametrize("levels", [250, 900, 1_100, 100_000])
@pytest.mark.parametrize(("begin", "end"), [("[", "]"), ('{"a]":', "}"), ('[1,{"b":"\\"[","c":', "}]")])
def test_what_is_nested_too_deep_to_be_reported_is_cut_off_there_and_noted(levels: int, begin: str, end: str) -> None:
    deep = begin * levels + "null" + end * levels
    found = read(raw(f'"a":{deep},"b":1'), ID)
    assert found.value["b"] == 1
    assert json.loads(found.json) == found.value
    assert len(found.notes) == 1
    assert "nested deeper than 200 levels" in found.notes[0]


@pytest.mark.parametrize(
    "deepest",
    ["x", "NaN", "1 2", '"', '"\\', "]", "[", "}", '{"a"}', '\\"' * 100_000],
    ids=["a word", "NaN", "two", "a quote", "a backslash", "too much", "too few", "another", "no value", "quotes"],
)
def test_what_is_no_json_far_below_is_none(deepest: str) -> None:
    levels = 1_100
    with pytest.raises(ValueError, match=r".*"):
        read(raw('"a":' + "[" * levels + deepest + "]" * levels), ID)


def test_no_more_is_noted_than_somebody_reads() -> None:
    many = b",".join(b'"%d":["\\ud800",{"source":"\\ud800","id":"\\ud800"}]' % number for number in range(10_000))
    found = read(raw(many), ID)
    assert 0 < len(found.notes) <= MAX_NOTES


@pytest.mark.parametrize(
    "members",
    [
        '"text": "%s"' % ("7" * 1_000_000),
        '"text": "%s"' % ("7." * 500_000),
        '"text": "%s"' % ("7e7" * 333_333),
        '"text": "7e%s"' % ("7" * 1_000_000),
        '"number": 0.%s' % ("7" * 1_000_000),
        '"number": 7e-%s' % ("7" * 1_000_000),
        '"numbers": [%s7]' % (("7" * 4_300 + ",") * 230),
    ],
    ids=["digits", "digits and dots", "digits and letters", "an exponent", "a fraction", "a number", "numbers"],
)
def test_digits_are_searched_once_however_many_there_are(members: str) -> None:
    # What is searched again from each digit takes a time that no test waits for, and stops the whole worker.
    found = read(raw(members), ID)
    assert (found.value["id"], found.value["locked"]) == (ID, True)


@pytest.mark.parametrize(
    "data", [b"", b" ", b"{", b"<html>", b"{}{}", b'{"a":NaN}', b'{"a":-Infinity}', b"\xff", b"[1,]", b"'a'"]
)
def test_what_is_no_json_is_none(data: bytes) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 - of several kinds
        read(data, ID)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda values: (
        st.lists(values, max_size=4) | st.dictionaries(st.text(max_size=8) | st.just("id"), values, max_size=4)
    ),
    max_leaves=20,
)


@given(
    value=st.dictionaries(st.text(max_size=8), JSON, max_size=5),
    ensure_ascii=st.booleans(),
    indent=st.sampled_from([None, 1]),
)
def test_any_json_comes_back_equal(value: dict[str, Any], *, ensure_ascii: bool, indent: int | None) -> None:
    value = {"id": ID, "locked": True, **value}
    found = read(json.dumps(value, ensure_ascii=ensure_ascii, indent=indent).encode(), ID)
    assert found.value == json.loads(found.json) == value
    assert found.notes == ()


def _numbers(value: Any) -> list[float]:
    if isinstance(value, dict):
        return [number for member in value.values() for number in _numbers(member)]
    if isinstance(value, list):
        return [number for member in value for number in _numbers(member)]
    return [value] if isinstance(value, float) else []
