"""The JSON of an answer, so that an event can tell it: as it came, or with a note of what was changed and where.

An answer that confirms a lock must not be lost over a detail of its JSON that some reader cannot take: half an emoji at
the end of a name that was cut off, a number with twenty digits, a key that stands there twice.

pydantic's reader takes a quarter of the time of Python's, and is right for nearly every answer. But it keeps the last
of two values, and reads every fraction as a double. Where writing what it read gives what came, nothing was lost. Else
a few searches of the bytes tell whether that could be.
"""

from __future__ import annotations

import json
import re
from typing import Any, NamedTuple

from pydantic_core import from_json, to_json

from tasks import verbatim
from tasks.managem.conversation import path

MAX_NOTES = 20
"""Of the notes about one answer; what goes beyond them is not told."""

_MAX_LEVELS = 200  # deeper ones pydantic neither reads nor writes
_NOTED_LEVELS = 5
#: What "id" and "locked" can be spelled with in another way: it stands for a lower-case letter.
_ESCAPED_LETTER = b"\\u006"
#: A double keeps every number of up to 15 digits, but for those of the smallest and the largest exponents.
_SIXTEEN_DIGITS = b"0" * 17  # with a dot among them
#: Looked for where digits begin and not at each of them, or a text of a million digits takes hours.
_LONG_FRACTION = re.compile(rb"(?<![0-9.])(?=[0-9.]{17})[0-9]++[.eE]")
_EXPONENTS = b"0e0", b"0e-0"
_FAR_EXPONENT = re.compile(rb"[0-9][eE][-+]?[0-9]{3,}[,}\]\s]")
_KINDS = bytes.maketrans(b"123456789.E+", b"0000000000e-")
_SURROGATE = re.compile("[\ud800-\udfff]")
_REPLACEMENT = "\ufffd"
#: Readers in Python refuse longer ones, and the whole event with them.
_MAX_INTEGER_DIGITS = 4300


class Body(NamedTuple):
    """What an answer says.

    Attributes:
        value: the JSON value.
        json: the same in UTF-8, as an event may hold it, its numbers as they came.
        notes: where it could not be kept as it came: ``field.path: what was done``, at most ``MAX_NOTES``.
        is_verbatim: it holds numbers that only :func:`tasks.verbatim.encode` writes as they came.
        doubtful: the names of the outermost object that do not stand for one value as it came: they are there twice
            with different values, or their value had to be changed.
    """

    value: Any
    json: bytes
    notes: tuple[str, ...] = ()
    is_verbatim: bool = False
    doubtful: frozenset[str] = frozenset()


def read(data: bytes, conversation_id: str) -> Body:
    """Read an answer's body; ``conversation_id`` is the one that it should be about.

    Raises:
        ValueError: it is no JSON.
        RecursionError: it is nested a thousand levels deep.
    """
    try:
        value = from_json(data, allow_inf_nan=False, cache_strings="keys")
    except ValueError:
        return _Reader().read(data, may_need_changes=True)
    written = to_json(value)
    if written == data or _is_plain(data, conversation_id):
        return Body(value, written)
    return _Reader().read(data, may_need_changes=False)


def _is_plain(data: bytes, conversation_id: str) -> bool:
    """Whether ``id`` and ``locked`` are said once, and every number is one that a double keeps."""
    if data.count(b'"locked"') != 1 or _ESCAPED_LETTER in data:
        return False
    own_id = b'"id":%s' % to_json(conversation_id)
    where = data.find(own_id)
    if where < 0:
        own_id = b'"id": %s' % to_json(conversation_id)
        where = data.find(own_id)
    # Other objects of the answer have an id too; the outermost one's comes first, and no other is the same.
    if where < 0 or where != data.find(b'"id"') or data.find(own_id, where + 1) > 0:
        return False
    kinds = data.translate(_KINDS)
    if _SIXTEEN_DIGITS in kinds and _LONG_FRACTION.search(data):
        return False
    return not (any(exponent in kinds for exponent in _EXPONENTS) and _FAR_EXPONENT.search(data))


class _Reader:
    """Reads one body with Python's JSON reader, which tells of every pair, number and constant."""

    def __init__(self) -> None:
        self._notes: dict[str, None] = {}
        self._is_verbatim = False
        self._last_object: list[tuple[str, Any]] = []
        self._doubtful: set[str] = set()

    def read(self, data: bytes, *, may_need_changes: bool) -> Body:
        text = _text(data)
        value = json.loads(
            text,
            object_pairs_hook=self._object,
            parse_float=self._number,
            parse_int=self._integer,
            parse_constant=_no_number,
        )
        if isinstance(value, dict) and len(value) < len(self._last_object):  # the outermost one is complete last
            self._look_for_contradictions()
        if may_need_changes:
            value = self._told(value, ())
        written = verbatim.encode(value) if self._is_verbatim else to_json(value)
        return Body(value, written, tuple(self._notes), self._is_verbatim, frozenset(self._doubtful))

    def _object(self, pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        self._last_object = pairs
        members = dict(pairs)
        if len(members) < len(pairs):
            seen: set[str] = set()
            for name, _ in pairs:
                if name in seen:
                    self._note((name,), "stands there twice, and the last one is told")
                seen.add(name)
        return members

    def _look_for_contradictions(self) -> None:
        first: dict[str, Any] = {}
        for name, value in self._last_object:
            other = first.setdefault(name, value)
            if other is not value and (type(other) is not type(value) or other != value):
                self._doubtful.add(name)

    def _number(self, digits: str) -> float:
        number = verbatim.read(digits)
        self._is_verbatim = self._is_verbatim or isinstance(number, verbatim.Verbatim)
        return number

    def _integer(self, digits: str) -> int | None:
        if len(digits) <= _MAX_INTEGER_DIGITS:
            return int(digits)
        self._note((), f"held an integer of over {_MAX_INTEGER_DIGITS:,} digits, told as null")
        return None

    def _told(self, value: Any, location: tuple[int | str, ...]) -> Any:
        """The value as an event can tell it."""
        if isinstance(value, str):
            if value.isascii() or not _SURROGATE.search(value):
                return value
            self._note(location, "held half a character, told as U+FFFD")
            self._doubtful.update(name for name in location[:1] if isinstance(name, str))
            return _SURROGATE.sub(_REPLACEMENT, value)
        if not isinstance(value, dict | list):
            return value
        if len(location) >= _MAX_LEVELS:
            self._note(location[:_NOTED_LEVELS], f"was nested deeper than {_MAX_LEVELS} levels, and is cut off there")
            return None
        if isinstance(value, list):
            return [self._told(member, (*location, 0)) for member in value]
        return {
            self._told(name, (*location, name)): self._told(member, (*location, name)) for name, member in value.items()
        }

    def _note(self, location: tuple[int | str, ...], what: str) -> None:
        if len(self._notes) < MAX_NOTES:
            self._notes[f"{path(location)}: {what}"] = None


def _text(data: bytes) -> str:
    """A body as text. What is no character becomes half a surrogate pair, or several."""
    encoding = json.detect_encoding(data)
    try:
        return data.decode(encoding, "surrogatepass")
    except UnicodeDecodeError:
        return data.decode(encoding, "surrogateescape")


def _no_number(name: str) -> None:
    """NaN and the infinities are no JSON (RFC 8259, section 6), though Python reads them."""
    raise ValueError(name)
