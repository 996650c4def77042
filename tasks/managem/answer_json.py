"""Reads the JSON of an answer in a form that an event can hold: unchanged, or with a note of each change.

An answer that confirms a lock must not be lost over a detail of its JSON that some reader refuses: half an emoji at the
end of a name that was cut off, a number with twenty digits, a duplicate key.

pydantic's reader takes a quarter of the time of Python's, and is right for nearly every answer. But it keeps the last
of two values with one key, and reads every fraction as a double. If writing its result gives the same bytes, nothing
was lost. Else a few searches of the bytes show if anything can be lost.
"""

from __future__ import annotations

import json
import re
from typing import Any, NamedTuple

from pydantic_core import from_json, to_json

from tasks import verbatim
from tasks.managem.conversation import path
from tasks.managem.deep_json import cut_off

MAX_NOTES = 20
"""The most notes about one answer; further ones are dropped."""

_MAX_LEVELS = 200  # pydantic neither reads nor writes deeper ones
_READ_LEVELS = 2 * _MAX_LEVELS  # Python's reader can read some hundred
_NOTED_LEVELS = 5
#: The escape of a lower-case letter, which allows other spellings of "id" and "locked".
_ESCAPED_LETTER = b"\\u006"
#: A double keeps every number of up to 15 digits, except with the smallest and the largest exponents.
_SIXTEEN_DIGITS = b"0" * 17  # with a dot among them
#: Matches only where digits begin and not at each of them, or a text of a million digits would take hours.
_LONG_FRACTION = re.compile(rb"(?<![0-9.])(?=[0-9.]{17})[0-9]++[.eE]")
_EXPONENTS = b"0e0", b"0e-0"
_FAR_EXPONENT = re.compile(rb"[0-9][eE][-+]?[0-9]{3,}[,}\]\s]")
_KINDS = bytes.maketrans(b"123456789.E+", b"0000000000e-")
_SURROGATE = re.compile("[\ud800-\udfff]")
_REPLACEMENT = "\ufffd"
#: Readers in Python refuse longer integers, and the whole event with them.
_MAX_INTEGER_DIGITS = 4300


class Body(NamedTuple):
    """The body of an answer.

    Attributes:
        value: the JSON value.
        json: the same as JSON in UTF-8 that an event may hold, with its numbers unchanged.
        notes: where it was changed: ``field.path: what was done``, at most ``MAX_NOTES``.
        is_verbatim: it holds numbers that only :func:`tasks.verbatim.encode` writes unchanged.
        doubtful: the names in the outermost object without one certain value: they occur twice with different values,
            or their value had to be changed.
    """

    value: Any
    json: bytes
    notes: tuple[str, ...] = ()
    is_verbatim: bool = False
    doubtful: frozenset[str] = frozenset()


def read(data: bytes, conversation_id: str) -> Body:
    """Read an answer's body; ``conversation_id`` is the conversation that it should be about.

    Raises:
        ValueError: it is no JSON.
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
    """Return True if ``id`` and ``locked`` occur once, and doubles keep every number."""
    if data.count(b'"locked"') != 1 or _ESCAPED_LETTER in data:
        return False
    own_id = b'"id":%s' % to_json(conversation_id)
    where = data.find(own_id)
    if where < 0:
        own_id = b'"id": %s' % to_json(conversation_id)
        where = data.find(own_id)
    # Other objects of the answer have ids too; the outermost object's must come first, and no other may be equal.
    if where < 0 or where != data.find(b'"id"') or data.find(own_id, where + 1) > 0:
        return False
    kinds = data.translate(_KINDS)
    if _SIXTEEN_DIGITS in kinds and _LONG_FRACTION.search(data):
        return False
    return not (any(exponent in kinds for exponent in _EXPONENTS) and _FAR_EXPONENT.search(data))


class _Reader:
    """Reads one body with Python's JSON reader, which has hooks for every pair, number and constant."""

    def __init__(self) -> None:
        self._notes: dict[str, None] = {}
        self._is_verbatim = False
        self._last_object: list[tuple[str, Any]] = []
        self._doubtful: set[str] = set()

    def read(self, data: bytes, *, may_need_changes: bool) -> Body:
        text = _text(data)
        try:
            value = self._loads(text)
        except RecursionError:
            value = self._loads(cut_off(text, _READ_LEVELS))
        if isinstance(value, dict) and len(value) < len(self._last_object):  # the outermost object is complete last
            self._look_for_contradictions()
        if may_need_changes:
            value = self._clean(value, ())
        written = verbatim.encode(value) if self._is_verbatim else to_json(value)
        return Body(value, written, tuple(self._notes), self._is_verbatim, frozenset(self._doubtful))

    def _loads(self, text: str) -> Any:
        return json.loads(
            text,
            object_pairs_hook=self._object,
            parse_float=self._number,
            parse_int=self._integer,
            parse_constant=_no_number,
        )

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

    def _clean(self, value: Any, location: tuple[int | str, ...]) -> Any:
        """Return the value in a form that an event can hold."""
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
            return [self._clean(member, (*location, 0)) for member in value]
        return {
            self._clean(name, (*location, name)): self._clean(member, (*location, name))
            for name, member in value.items()
        }

    def _note(self, location: tuple[int | str, ...], what: str) -> None:
        if len(self._notes) < MAX_NOTES:
            self._notes[f"{path(location)}: {what}"] = None


def _text(data: bytes) -> str:
    """Return a body as text. Invalid bytes become lone surrogates."""
    encoding = json.detect_encoding(data)
    try:
        return data.decode(encoding, "surrogatepass")
    except UnicodeDecodeError:
        return data.decode(encoding, "surrogateescape")


def _no_number(name: str) -> None:
    """Refuse NaN and infinities, which Python reads but JSON does not have (RFC 8259, section 6)."""
    raise ValueError(name)
