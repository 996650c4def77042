"""What ``lock-worker dead`` counts, shows and deletes."""

from __future__ import annotations

import base64
import json
import time
from typing import TYPE_CHECKING, Any

import pytest

from tests.cli.in_redis import DEAD, RESULTS, dead_letter, event, message
from tests.cli.steered import TYPE_PREFIX, actions, control_events

if TYPE_CHECKING:
    import redis

    from tests.cli.terminal import Terminal


def dead(terminal: Terminal, *arguments: str, status: int = 0) -> Any:
    ended = terminal.run("dead", *arguments, "--json")
    assert ended.returncode == status, ended.stderr
    return json.loads(ended.stdout)


def left(client: redis.Redis) -> list[str]:
    entries: Any = client.xrange(DEAD)
    return [json.loads(fields[b"event"])["data"]["job_id"] for _, fields in entries]


@pytest.fixture
def letters(redis_client: redis.Redis) -> dict[str, str]:
    """Four dead letters; the entry of each by its job id."""
    return {
        "a": dead_letter(redis_client, "a", "refused", error="not_found", rule="r-1", conversation="c-1"),
        "b": dead_letter(redis_client, "b", "exhausted", error="timeout", rule="r-1", conversation="c-2"),
        "c": dead_letter(redis_client, "c", "exhausted", error="server_error", rule="r-2", conversation="c-2"),
        "d": dead_letter(redis_client, "d", "exhausted", error="server_error", rule="r-2", conversation="c-3"),
    }


@pytest.mark.parametrize("arguments", [(), ("list",)])
def test_they_are_counted_and_the_newest_shown(
    terminal: Terminal, letters: dict[str, str], arguments: tuple[str, ...]
) -> None:
    found = dead(terminal, *arguments, "--last", "2")

    assert found["total"] == 4
    assert found["by_outcome"] == {"exhausted": 3, "refused": 1}
    assert found["by_error"] == {"server_error": 2, "not_found": 1, "timeout": 1}
    assert found["by_rule"] == {"r-1": 2, "r-2": 2}
    assert sum(found["by_day"].values()) == 4
    assert [(one["job_id"], one["entry"]) for one in found["newest"]] == [("d", letters["d"]), ("c", letters["c"])]
    ended = terminal.run("dead", *arguments)
    assert ended.returncode == 0
    assert ended.stdout.startswith("4 dead letters in moderation.dead at ")
    assert "          3  exhausted" in ended.stdout
    assert ended.stdout.index(letters["d"]) < ended.stdout.index(letters["a"])


def test_no_dead_letter_is_no_failure(terminal: Terminal) -> None:
    assert dead(terminal)["total"] == 0
    assert terminal.run("dead").stdout.startswith("0 dead letters in ")


@pytest.mark.usefixtures("letters")
@pytest.mark.parametrize(
    ("options", "jobs"),
    [
        (["--outcome", "refused"], ["a"]),
        (["--error", "timeout", "--error", "not_found"], ["b", "a"]),
        (["--rule", "r-2"], ["d", "c"]),
        (["--conversation", "c-2"], ["c", "b"]),
        (["--rule", "r-1", "--conversation", "c-2"], ["b"]),
        (["--since", "1h"], ["d", "c", "b", "a"]),
        (["--since", "2099-01-01"], []),
        (["--last", "0"], []),
    ],
)
def test_filters_select_those_that_fit_all_of_them(terminal: Terminal, options: list[str], jobs: list[str]) -> None:
    assert [one["job_id"] for one in dead(terminal, "list", *options)["newest"]] == jobs


def test_since_goes_by_the_time_at_which_the_letter_was_added(terminal: Terminal, redis_client: redis.Redis) -> None:
    now_ms = int(time.time() * 1000)
    for name, ago in (("old", 7_200_000), ("new", 60_000)):
        told: Any = {"event": event(name, "refused"), "queue": "q", "message": message(name)}
        redis_client.xadd(DEAD, told, id=f"{now_ms - ago}-0")

    assert [one["job_id"] for one in dead(terminal, "--since", "1h")["newest"]] == ["new"]
    assert dead(terminal, "--since", "1d")["total"] == 2


@pytest.mark.parametrize("by", ["job id", "entry"])
def test_one_is_shown_with_its_event_and_message(terminal: Terminal, letters: dict[str, str], by: str) -> None:
    name = "b" if by == "job id" else letters["b"]

    found = dead(terminal, "show", name)

    assert (found["job_id"], found["entry"], found["queue"]) == ("b", letters["b"], "moderation.lock")
    assert found["event"]["data"]["outcome"] == "exhausted"
    assert found["message"].encode() == base64.b64decode(found["message_base64"]) == message("b")
    ended = terminal.run("dead", "show", name)
    assert ended.returncode == 0
    assert '"outcome": "exhausted"' in ended.stdout
    assert message("b").decode() in ended.stdout


def test_a_message_of_any_bytes_is_shown_escaped(terminal: Terminal, redis_client: redis.Redis) -> None:
    raw = b"\xff\x1b[2J"
    dead_letter(redis_client, "a", "rejected", raw=raw, conversation="c-\x1b[2J")

    ended = terminal.run("dead", "show", "a")

    assert "\x1b" not in ended.stdout
    assert "\\xff\\u001b[2J" in ended.stdout
    assert base64.b64decode(dead(terminal, "show", "a")["message_base64"]) == raw
    assert "\x1b" not in terminal.run("dead").stdout


def test_one_that_is_not_there_is_a_failure(terminal: Terminal) -> None:
    ended = terminal.run("dead", "show", "a")

    assert ended.returncode == 1
    assert "no dead letter a in moderation.dead" in ended.stderr


@pytest.mark.parametrize(
    ("chosen", "stay"),
    [
        (["a", "c"], ["b", "d"]),
        (["--outcome", "exhausted"], ["a"]),
        (["--rule", "r-1", "--error", "timeout"], ["a", "c", "d"]),
        (["--all"], []),
    ],
)
@pytest.mark.usefixtures("letters")
def test_those_that_are_discarded_are_gone_and_their_events_stay(
    terminal: Terminal, redis_client: redis.Redis, chosen: list[str], stay: list[str]
) -> None:
    redis_client.xadd(RESULTS, {"event": event("a", "refused")})

    found = dead(terminal, "discard", *chosen, "--yes")

    assert left(redis_client) == stay
    assert (found["found"], found["discarded"], found["missing"]) == (4 - len(stay), 4 - len(stay), [])
    assert redis_client.xlen(RESULTS) == 1


def test_an_entry_is_discarded_by_its_name(
    terminal: Terminal, redis_client: redis.Redis, letters: dict[str, str]
) -> None:
    said = terminal.run("dead", "discard", letters["c"], "--yes", "--reason", "known", LOCK_WORKER_ACTOR="ann")
    assert said.returncode == 0
    assert left(redis_client) == ["a", "b", "d"]
    (event_of_it,) = control_events(redis_client)
    assert event_of_it["type"] == f"{TYPE_PREFIX}discarded"
    told = event_of_it["data"]
    assert (told["by"], told["reason"], told["dead_letters"], told["job_ids"]) == ("ann", "known", 1, ["c"])


@pytest.mark.usefixtures("letters")
def test_it_asks_before_it_discards(terminal: Terminal, redis_client: redis.Redis) -> None:
    with terminal.screen("dead", "discard", "--outcome", "exhausted") as screen:
        screen.wait_for("Delete 3 dead letters from moderation.dead at ")
        screen.type("n\n")
        assert screen.wait() == 1
    assert len(left(redis_client)) == 4

    with terminal.screen("dead", "discard", "--outcome", "exhausted") as screen:
        screen.wait_for("Delete 3 dead letters from moderation.dead at ")
        screen.type("y\n")
        assert screen.wait() == 0
    assert left(redis_client) == ["a"]


@pytest.mark.usefixtures("letters")
@pytest.mark.parametrize("is_interrupted", [True, False])
def test_no_answer_is_a_no(terminal: Terminal, redis_client: redis.Redis, *, is_interrupted: bool) -> None:
    with terminal.screen("dead", "discard", "--all") as screen:
        screen.wait_for("[y/N]: ")
        if is_interrupted:
            screen.interrupt()
        else:
            screen.type("\x04")
        screen.wait_for("lock-worker: nothing was discarded")
        assert screen.wait() == 1
    assert len(left(redis_client)) == 4


@pytest.mark.usefixtures("letters")
def test_nobody_is_asked_without_a_terminal(terminal: Terminal, redis_client: redis.Redis) -> None:
    ended = terminal.run("dead", "discard", "--all")

    assert ended.returncode == 2
    assert "--yes" in ended.stderr
    assert len(left(redis_client)) == 4


@pytest.mark.usefixtures("letters")
def test_an_id_without_a_dead_letter_is_named(terminal: Terminal, redis_client: redis.Redis) -> None:
    ended = terminal.run("dead", "discard", "a", "nobody", "--yes")

    assert ended.returncode == 1
    assert "nobody: there is no such dead letter" in ended.stderr
    assert left(redis_client) == ["b", "c", "d"]
    assert terminal.run("dead", "discard", "nobody", "--yes").returncode == 1


@pytest.mark.parametrize(
    "arguments",
    [
        ("discard",), ("discard", "--all", "a"), ("--since", "yesterday"), ("--outcome", "late"), ("--error", "odd"),
        ("show",), ("bury",), ("--json", "list"), ("list", "--last", "-1"),
    ],
)  # fmt: skip
def test_wrong_use_ends_with_status_2(terminal: Terminal, arguments: tuple[str, ...]) -> None:
    assert terminal.run("dead", *arguments).returncode == 2


def test_other_entries_in_the_stream_are_left_alone(terminal: Terminal, redis_client: redis.Redis) -> None:
    redis_client.xadd(DEAD, {"somebody": "else's"})
    dead_letter(redis_client, "a", "refused")

    assert dead(terminal, "discard", "--all", "--yes")["discarded"] == 1
    assert redis_client.xlen(DEAD) == 1


def test_dead_letters_can_be_discarded_to_make_room_in_a_full_redis(
    terminal: Terminal, redis_client: redis.Redis
) -> None:
    dead_letter(redis_client, "a", "refused")
    redis_client.config_set("maxmemory", 1)
    try:
        found = dead(terminal, "discard", "--all", "--yes")
    finally:
        redis_client.config_set("maxmemory", 0)

    assert found["discarded"] == 1
    assert actions(redis_client) == ["discarded"]


def test_a_server_that_refuses_is_told_with_what_was_discarded_until_then(
    terminal: Terminal, redis_client: redis.Redis
) -> None:
    dead_letter(redis_client, "a", "refused")
    redis_client.set("moderation.control", "not a stream")

    ended = terminal.run("dead", "discard", "--all", "--yes")

    assert (ended.returncode, redis_client.xlen(DEAD)) == (1, 1)
    assert "moderation.control" in ended.stderr
    assert ended.stderr.endswith("\n0 dead letters discarded\n")
