"""What a user may not do is told without doing any of it: by command, and by key."""

from __future__ import annotations

import re
from contextlib import contextmanager
from importlib.resources import files
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import pytest
from redis import Redis

from tests.broker.test_permissions import CHANNELS, COMMANDS, KEYS
from worker.broker import scripts
from worker.broker.keys import Keys
from worker.broker.permissions import Names, Refused, needed_commands, refused_commands

if TYPE_CHECKING:
    from collections.abc import Iterator

NAMES = Names(Keys("moderation.lock"), "moderation.results", "moderation.dead", "moderation.control")
#: What a worker does beside its moves.
BESIDE = ("+blmove", "+xinfo|stream", "+lrange", "+zcard", "+zcount", "+zlexcount")


@contextmanager
def user(client: Redis, url: str, *rules: str) -> Iterator[Redis]:
    """A client of a user with exactly these rules."""
    ours: Any = client
    ours.execute_command("ACL", "SETUSER", "lock-worker", "reset", "on", ">a password", *rules)
    with Redis.from_url(url.replace("://", f"://lock-worker:{quote('a password')}@")) as found:
        yield found
    ours.execute_command("ACL", "DELUSER", "lock-worker")


def asked(client: Redis) -> list[Refused]:
    found = refused_commands(client, NAMES)
    assert found is not None
    return found


def refused(client: Redis, url: str, *rules: str) -> list[Refused]:
    with user(client, url, *KEYS, *CHANNELS, *COMMANDS, *BESIDE, *rules) as found:
        return asked(found)


def test_the_documented_user_lacks_nothing_and_looking_changes_nothing(redis_client: Redis, redis_url: str) -> None:
    assert refused(redis_client, redis_url) == []
    assert redis_client.dbsize() == 0


@pytest.mark.parametrize("rule", sorted({*COMMANDS, *BESIDE} - {"+eval"}))
def test_a_command_that_is_taken_away_is_named_with_its_rule(redis_client: Redis, redis_url: str, rule: str) -> None:
    found = refused(redis_client, redis_url, f"-{rule[1:]}")

    assert [each.rule for each in found] == [rule]
    assert found[0].on


@pytest.mark.parametrize("missing", KEYS[:7])
def test_keys_that_are_not_the_users_are_named(redis_client: Redis, redis_url: str, missing: str) -> None:
    keys = [key for key in KEYS if key != missing]
    with user(redis_client, redis_url, *keys, *CHANNELS, *COMMANDS, *BESIDE) as found:
        refusals = asked(found)

    of_keys = re.compile(re.escape(missing.removeprefix("~")).replace(r"\*", ".*"))
    named = {key for each in refusals for key in each.on if each.command != "BLMOVE"}
    assert named
    assert all(of_keys.fullmatch(key) for key in named)


def test_a_channel_that_is_not_the_users_is_named(redis_client: Redis, redis_url: str) -> None:
    with user(redis_client, redis_url, "~*", "+@all") as found:
        assert refused_commands(found, NAMES) == [Refused("PUBLISH", ("moderation.results",))]


def test_each_command_of_a_script_is_asked_for() -> None:
    folder = files(scripts.__package__) / "lua"
    text = "".join(script.read_text("utf-8") for script in folder.iterdir())
    found = re.findall(r"(?:redis\.p?call\(|LPOP' or )'([A-Z]+)'(?:, '(USAGE|GROUPS)')?", text)
    in_scripts = {" ".join(filter(None, words)) for words in found}

    assert in_scripts <= {name for _, name, _ in needed_commands(NAMES)}


def test_a_queue_whose_name_has_blanks_and_commas_is_asked_for_as_it_is_named() -> None:
    names = Names(Keys("a queue, of ours $ @"), "results", "dead", "control")

    assert {len(words) for words, name, _ in needed_commands(names) if name == "BLMOVE"} == {6}
