"""The names of the keys, and the glossary that tells of them."""

from __future__ import annotations

from functools import cached_property

import pytest
from redis.crc import key_slot

from tests.broker import glossary
from worker.broker.keys import UNACKED, UNACKED_INDEX, Keys, digest, is_in_slot, ledger_of

KEYS = Keys("a queue")
FLEET = Keys("the fleet's queue")
#: Every key of a queue, with its type and whether it passes by itself.
NAMED = {
    **dict.fromkeys(KEYS.priority_lists, ("list", False)),
    KEYS.arrived: ("list", False),
    KEYS.requeued: ("list", False),
    KEYS.retries: ("list", False),
    KEYS.suspects: ("list", False),
    KEYS.record_prefix + "token.1": ("hash", False),
    KEYS.leases: ("zset", False),
    KEYS.delayed: ("zset", False),
    KEYS.held: ("zset", False),
    KEYS.deadlines: ("zset", False),
    KEYS.id_prefix + digest("a job"): ("string", True),
    KEYS.id_prefix + digest("a job") + ":other": ("string", True),
    KEYS.id_prefix + digest("a job") + ":unlocked": ("string", True),
    KEYS.id_prefix + digest("a job") + ":other:unlocked": ("string", True),
    KEYS.counters: ("hash", False),
    KEYS.maintenance: ("hash", False),
    KEYS.held: ("zset", False),
    FLEET.controls: ("hash", False),
    FLEET.cancelled: ("string", True),
    FLEET.cancelled_prefix + digest("a job"): ("string", True),
    FLEET.rules_prefix + digest("a rule"): ("hash", True),
    "the controls": ("stream", False),
    KEYS.samples: ("list", True),
    KEYS.arrivals: ("hash", False),
    KEYS.draining: ("string", True),
    KEYS.lost_takes: ("hash", True),
    FLEET.workers: ("hash", True),
    FLEET.queues: ("zset", False),
    UNACKED: ("hash", False),
    UNACKED_INDEX: ("zset", False),
    FLEET.pause: ("string", True),
    FLEET.rate: ("string", True),
    FLEET.limit: ("hash", False),
    "the results": ("stream", False),
    "the dead": ("stream", False),
    ledger_of("the results"): ("string", False),
    ledger_of("the dead"): ("string", False),
}


def table() -> list[glossary.Row]:
    names = {
        "RESULTS_CHANNEL": "the results",
        "DEAD_STREAM": "the dead",
        "LOCK_QUEUE": "the fleet's queue",
        "CONTROL_STREAM": "the controls",
    }
    return glossary.rows("a queue", names)


def test_producers_lists_are_named_as_kombu_names_them() -> None:
    assert KEYS.priority_lists == ("a queue", "a queue\x06\x163", "a queue\x06\x166", "a queue\x06\x169")


@pytest.mark.parametrize("key", NAMED)
def test_every_key_stands_in_the_glossary(key: str) -> None:
    kind, has_ttl = NAMED[key]

    assert glossary.trouble(table(), key, kind, 1000 if has_ttl else -1) is None


def test_every_line_of_the_glossary_is_a_key() -> None:
    assert [row.pattern.pattern for row in table() if not any(row.pattern.fullmatch(key) for key in NAMED)] == []
    assert len(table()) == 36


def test_a_key_that_is_not_in_the_glossary_is_noticed() -> None:
    assert (
        glossary.trouble(table(), "lw:1:a queue:new", "list", -1)
        == "'lw:1:a queue:new' is not in the glossary of keys.py"
    )
    assert "is a hash" in str(glossary.trouble(table(), KEYS.requeued, "hash", -1))
    assert "has no TTL" in str(glossary.trouble(table(), KEYS.draining, "string", -1))
    assert "has a TTL" in str(glossary.trouble(table(), KEYS.requeued, "list", 1000))
    assert "not in the glossary" in str(glossary.trouble(table(), KEYS.pause, "string", 1000))


def test_queues_share_no_key() -> None:
    other = Keys("another queue")

    names = {name for name, value in vars(Keys).items() if isinstance(value, cached_property)}

    assert len(names) == 29
    assert all(getattr(KEYS, name) != getattr(other, name) for name in names)


@pytest.mark.parametrize("text", ["", "a job", "\ud800", "x" * 128])
def test_a_digest_is_short_and_always_the_same(text: str) -> None:
    assert len(digest(text)) == 32
    assert digest(text) == digest(text)
    assert digest(text) != digest(text + " ")


@pytest.mark.parametrize(
    ("name", "tag", "expected"),
    [
        ("{mod}.lock", "{mod}", True),
        ("lock.{mod}{other}", "{mod}", True),
        ("{other}{mod}", "{mod}", False),
        ("{a{mod}", "{mod}", False),
        ("mod.lock", "{mod}", False),
        ("mod.lock", "", True),
    ],
)
def test_the_first_braces_of_a_name_decide_on_its_slot(name: str, tag: str, *, expected: bool) -> None:
    assert is_in_slot(name, tag) is expected
    if tag:
        assert (key_slot(name.encode()) == key_slot(tag.encode())) is expected
