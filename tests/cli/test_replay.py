"""What ``lock-worker replay`` sends again, what stays, and what it says."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import pytest

from tasks.lock_conversation import TASK_NAME
from tasks.message import Accepted
from worker.intake import reader

if TYPE_CHECKING:
    import redis

    from tests.cli.terminal import Terminal

QUEUE, DEAD = "moderation.lock", "moderation.dead"


def letter(
    client: redis.Redis, job_id: str, outcome: str = "exhausted", error: str = "server_error", *, job: Any = "c-1"
) -> None:
    """A dead letter as the worker writes it; ``job`` is its fields, an id, or None where nothing was understood."""
    event = {
        "specversion": "1.0", "id": job_id, "source": "/lock-worker", "type": "conversation.lock_failed",
        "time": "2026-11-22T15:04:05.123456Z", "datacontenttype": "application/json",
        "data": {
            "outcome": outcome, "attempts": 8, "job": {"conversation_id": job} if isinstance(job, str) else job,
            "conversation": None, "error": {"type": error, "title": "", "status": 500, "detail": "It failed."},
        },
    }  # fmt: skip
    client.xadd(DEAD, {"event": json.dumps(event), "message": "the raw message"})


def sent(client: redis.Redis, key: str = QUEUE) -> list[Accepted]:
    """The jobs on a list as the worker understands them, in the order in which they were sent."""
    messages: Any = client.lrange(key, 0, -1)
    jobs = [reader(TASK_NAME)(raw, size=len(raw), now=datetime.now(UTC)) for raw in reversed(messages)]
    assert all(isinstance(job, Accepted) for job in jobs)
    return jobs  # type: ignore[return-value]  # seen above


def left(client: redis.Redis) -> list[str]:
    """The ids of the jobs whose letters are still there."""
    entries: Any = client.xrange(DEAD)
    return [json.loads(fields[b"event"])["id"] for _, fields in entries]


def test_the_job_is_sent_again_as_it_was_under_a_new_id_that_names_the_old_one(
    terminal: Terminal, redis_client: redis.Redis
) -> None:
    fields = {
        "conversation_id": "c/1", "rule_id": "r-17", "policies": ["p-1"], "dry_run": True, "metadata": {"ünï": [0.5]},
        "requested_at": "2026-11-22T15:04:05Z",
    }  # fmt: skip
    letter(redis_client, "old-1", job=fields)

    ended = terminal.run("replay", "--all")

    assert ended.returncode == 0, ended.stderr
    (job,) = sent(redis_client)
    assert [job.id] == ended.stdout.split()
    assert (job.replay_of, job.subject, job.echo, job.ignored) == ("old-1", "c/1", fields, ())
    assert job.id != "old-1"
    assert left(redis_client) == []
    assert f"1 job sent again to {QUEUE} at 127.0.0.1:" in ended.stderr


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--all"], ["a", "b", "c", "d"]),
        (["b", "d", "nobody"], ["b", "d"]),
        (["--outcome", "refused"], ["b", "c"]),
        (["--outcome", "refused", "--outcome", "poisoned"], ["b", "c", "d"]),
        (["--error", "forbidden"], ["b"]),
        (["--outcome", "refused", "--error", "not_found"], ["c"]),
        (["c", "a", "--outcome", "refused"], ["c"]),
    ],
    ids=" ".join,
)
def test_only_the_chosen_letters_are_replayed(
    terminal: Terminal, redis_client: redis.Redis, arguments: list[str], expected: list[str]
) -> None:
    letter(redis_client, "a")
    letter(redis_client, "b", "refused", "forbidden")
    letter(redis_client, "c", "refused", "not_found")
    letter(redis_client, "d", "poisoned", "poisoned")

    assert terminal.run("replay", *arguments).returncode == 0

    assert [job.replay_of for job in sent(redis_client)] == expected
    assert left(redis_client) == [name for name in "abcd" if name not in expected]


def test_a_list_shows_the_letters_and_changes_nothing(terminal: Terminal, redis_client: redis.Redis) -> None:
    letter(redis_client, "a")
    letter(redis_client, "b", "refused", "forbidden")

    everything, some = terminal.run("replay", "--list"), terminal.run("replay", "--list", "--error", "forbidden")

    assert [line.split()[1] for line in everything.stdout.splitlines()] == ["exhausted", "refused"]
    assert "- (8 calls) a It failed." in everything.stdout
    assert f"2 dead letters in {DEAD} at 127.0.0.1:" in everything.stderr
    assert len(some.stdout.splitlines()) == 1
    assert left(redis_client) == ["a", "b"]
    assert sent(redis_client) == []


def test_what_holds_no_valid_job_stays_and_is_named_with_the_mend(
    terminal: Terminal, redis_client: redis.Redis
) -> None:
    letter(redis_client, "unreadable", "rejected", "undecodable", job=None)
    letter(redis_client, "misspelt", "rejected", "invalid_job", job={"conversation_id": "c-1", "dryrun": True})
    letter(redis_client, "good")

    ended = terminal.run("replay", "--all")

    assert ended.returncode == 0
    assert [job.replay_of for job in sent(redis_client)] == ["good"]
    assert left(redis_client) == ["unreadable", "misspelt"]
    unreadable, misspelt, summary = ended.stderr.splitlines()
    assert unreadable == "unreadable: nothing was understood of the message."
    assert misspelt.startswith("misspelt: ")
    assert "dry_run may be meant" in misspelt
    assert summary.endswith("; 2 dead letters without a valid job stay")


def test_what_others_wrote_into_the_stream_is_left_alone(terminal: Terminal, redis_client: redis.Redis) -> None:
    redis_client.xadd(DEAD, {"event": "not ours"})
    redis_client.xadd(DEAD, {"neither": "this"})
    letter(redis_client, "good")

    assert terminal.run("replay", "--all").returncode == 0

    assert [job.replay_of for job in sent(redis_client)] == ["good"]
    assert redis_client.xlen(DEAD) == 2


def test_very_many_are_replayed_in_order(terminal: Terminal, redis_client: redis.Redis) -> None:
    names = [f"old-{number}" for number in range(230)]
    for name in names:
        letter(redis_client, name)

    ended = terminal.run("replay", "--all", "--priority", "9")

    jobs = sent(redis_client, f"{QUEUE}\x06\x169")
    assert [job.replay_of for job in jobs] == names
    assert [job.id for job in jobs] == ended.stdout.split()
    assert "230 jobs sent again" in ended.stderr


@pytest.mark.parametrize("arguments", [["--all"], ["nobody"]], ids=" ".join)
def test_nothing_to_replay_is_said_and_a_status_that_scripts_can_tell(
    terminal: Terminal, redis_client: redis.Redis, arguments: list[str]
) -> None:
    if arguments != ["--all"]:
        letter(redis_client, "good")

    ended = terminal.run("replay", *arguments)

    assert (ended.returncode, ended.stdout) == (1, "")
    assert ended.stderr.startswith(f"lock-worker: nothing was sent: no dead letter in {DEAD} at 127.0.0.1:")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "say which: job ids, --outcome, --error, or --all"),
        (["--outcome", "lost"], "--outcome lost: there are locked, would_lock"),
        (["--error", "lost"], "--error lost: there are invalid_job, undecodable"),
        (["--all", "--priority", "10"], "--priority': Input should be less than or equal to 9"),
    ],
    ids=str,
)
def test_a_wrong_use_is_told_and_sends_nothing(
    terminal: Terminal, redis_client: redis.Redis, arguments: list[str], said: str
) -> None:
    letter(redis_client, "good")

    ended = terminal.run("replay", *arguments)

    assert ended.returncode == 2
    assert said in " ".join(ended.stderr.replace("│", " ").split())
    assert left(redis_client) == ["good"]


def test_a_name_in_a_letter_does_not_move_the_cursor(terminal: Terminal, redis_client: redis.Redis) -> None:
    letter(redis_client, "a\u001b[2J", "rejected", "invalid_job", job="\u001b[2J")

    for arguments in (["--list"], ["--all"]):
        ended = terminal.run("replay", *arguments)
        assert "\x1b" not in ended.stdout + ended.stderr
