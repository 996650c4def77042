"""Finds environment variables that look like a setting and are none, or whose value looks like a slip.

A misspelt variable would be ignored without a word, and its default would be used. No value is ever told. A container
has many variables of other programs, so a name counts only if it is close to a setting's.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, get_args

from pydantic import SecretStr

from settings import Settings
from worker.observe.printable import printable

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

#: Variables of other programs that are close to a setting's name.
_OF_OTHERS = re.compile(
    r"(?:APP|AWS|BUNDLE|CELERY|CI|DOCKER|GIT|GITHUB|GITLAB|GOOGLE|HTTP|HTTPS|KUBERNETES|OTEL|PIP|PYTHON|SSL|UV|VAULT)_.*"
    # of the images of Redis, and of Redis itself as a sidecar
    r"|REDIS_(?:VERSION|DOWNLOAD_.*|TLS_.*|MASTER_.*|REPLICATION_.*|SENTINEL_.*|CLUSTER_.*|ACL_.*|AOF_.*|RDB_.*)"
    # service links of Kubernetes; a link named like X_PORT has a value that begins with a protocol
    r"|.*_SERVICE_(?:HOST|PORT|PORT_.*)|.*_PORT_\d+_(?:TCP|UDP|SCTP)(?:_.*)?"
)
_LINK = re.compile(r"(?:tcp|udp|sctp)://", re.IGNORECASE)
#: What some put before the names of all variables of one program.
_PREFIXES = ("LOCK_WORKER_", "LOCKWORKER_", "WORKER_")
#: First words that settings share with many other programs. A name that begins with one has to have more in common.
_COMMON_WORDS = frozenset({"API", "EVENT", "HEALTH", "JOB", "MAX", "RATE", "REDIS", "RESULT"})
#: First words that tell nothing: every other program has variables that begin so.
_EMPTY_WORDS = frozenset({"LOG"})
#: Two words are the same from so many equal first letters on, such as DEDUP and DEDUPLICATE.
_SAME_LETTERS = 5
#: A longer name is no setting's; comparing it would take long.
_MAX_NAME = 100
#: Names from this length on may have two slips.
_LONG_NAME = 9
#: A start tells of so many at most.
_MAX_TOLD = 20


@dataclass(frozen=True, slots=True)
class Suspicion:
    """What is odd about a variable.

    Attributes:
        name: the variable.
        problem: what is odd, without its value.
    """

    name: str
    problem: str

    def __str__(self) -> str:
        return f"{printable(self.name)}: {self.problem}"


def misspelt(environment: Mapping[str, str] = os.environ) -> list[Suspicion]:
    """Return the variables that look like a setting and are none."""
    names = [name for name in sorted(environment) if name not in Settings.model_fields and len(name) <= _MAX_NAME]
    found = ((name, _meant(name, environment[name])) for name in names)
    return [Suspicion(name, f"not a setting; {meant} may be meant") for name, meant in found if meant is not None][
        :_MAX_TOLD
    ]


def odd_values(environment: Mapping[str, str] = os.environ) -> list[Suspicion]:
    """Return the settings whose text has blanks or quotes around it that the worker takes as part of it."""
    return [Suspicion(name, problem) for name in _TEXTS if (problem := _slip(name, environment.get(name, "")))]


def _slip(name: str, value: str) -> str | None:
    bare = value.strip()
    if value and not bare:
        return "its value is blank"
    if len(bare) > 1 and bare[0] == bare[-1] and bare[0] in "\"'":
        return "its value is in quotes, which are taken as part of it"
    if bare != value and name not in _TRIMMED:
        return "its value has blanks around it, which are taken as part of it"
    return None


def _is_text(annotation: object) -> bool:
    return annotation is str or annotation is SecretStr or any(map(_is_text, get_args(annotation)))


_TEXTS = [name for name, field in Settings.model_fields.items() if _is_text(field.annotation)]
#: Settings whose value is used without the blanks around it.
_TRIMMED = frozenset({"REDIS_URL", "API_URL", "API_TOKEN", "EVENT_SOURCE"})


def _meant(name: str, value: str) -> str | None:
    """Return the setting that a variable may be meant for; None if it is another program's."""
    plain = re.sub(r"[^A-Z0-9]+", "_", name.upper())
    if plain == name and (_OF_OTHERS.fullmatch(name) or _LINK.match(value)):
        return None
    for prefix in _PREFIXES:
        if plain.startswith(prefix) and len(plain) > len(prefix):
            plain = plain.removeprefix(prefix)
    if plain in Settings.model_fields:
        return plain
    return _cut_short(plain) or _closest(plain) or _in_another_order(plain) or _of_the_same_words(plain)


def _cut_short(name: str) -> str | None:
    """Return the only setting whose first words, two or more, are the whole name."""
    longer = [known for known in Settings.model_fields if known.startswith(f"{name}_")]
    return longer[0] if "_" in name and len(longer) == 1 else None


def _closest(name: str) -> str | None:
    """Return the setting whose name differs by a slip or two of the hand."""
    slips = 2 if len(name) >= _LONG_NAME else 1
    distances = {known: _distance(name, known, slips) for known in Settings.model_fields}
    known = min(distances, key=lambda each: distances[each])
    return known if distances[known] <= slips else None


def _in_another_order(name: str) -> str | None:
    """Return the setting with exactly the words of a name."""
    words = sorted(name.split("_"))
    return next((known for known in Settings.model_fields if sorted(known.split("_")) == words), None)


def _of_the_same_words(name: str) -> str | None:
    """Return the setting that shares most words with a name, or all that share its first one."""
    words = name.split("_")
    known_words = {known: known.split("_") for known in Settings.model_fields}
    is_known = any(_are_same(words[0], others[0]) for others in known_words.values())
    if len(words) == 1 or not is_known or words[0] in _EMPTY_WORDS:
        return None
    needed = 2 if words[0] in _COMMON_WORDS else 1
    likely = {
        known: (_shared(words, others), _are_same(words[0], others[0]), -abs(len(known) - len(name)))
        for known, others in known_words.items()
        if _are_same(words[0], others[0]) or len(words) == len(others)
    }
    known = max(likely, key=lambda each: likely[each])
    shared, is_first_same, _ = likely[known]
    if shared < (needed if is_first_same else 2):
        return None
    return known if shared > 1 else " or ".join(each for each in likely if likely[each][1])


def _shared(words: list[str], others: list[str]) -> int:
    """Return how many words two names share at their beginnings and at their ends."""
    shortest = min(len(words), len(others))
    front = next((at for at in range(shortest) if not _are_same(words[at], others[at])), shortest)
    rest = shortest - front
    return front + next((at for at in range(rest) if words[-1 - at] != others[-1 - at]), rest)


def _are_same(one: str, other: str) -> bool:
    return one == other or (min(len(one), len(other)) >= _SAME_LETTERS and one[:_SAME_LETTERS] == other[:_SAME_LETTERS])


def _distance(one: str, other: str, most: int) -> int:
    """Return the slips between two names: letters added, left out, changed, or swapped with the next one.

    More than ``most`` may be told as any larger number.
    """
    if abs(len(one) - len(other)) > most:
        return most + 1
    before: list[int] = []
    row = list(range(len(other) + 1))
    for at, letter in enumerate(one, 1):
        before, last, row = row, before, [at]
        for to, wanted in enumerate(other, 1):
            cost = min(before[to] + 1, row[to - 1] + 1, before[to - 1] + (letter != wanted))
            if at > 1 and to > 1 and letter == other[to - 2] and one[at - 2] == wanted:
                cost = min(cost, last[to - 2] + 1)
            row.append(cost)
    return row[-1]


def hints() -> Iterator[str]:
    """Say of each misspelt variable what is meant, a line each, for the message of a start that fails."""
    for suspicion in misspelt():
        yield f"\n  - {suspicion}"
