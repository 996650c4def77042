"""``lock-worker pause`` and ``resume``: the fleet stops, goes on, and all of it is noted."""

from __future__ import annotations

import json
import subprocess
import time
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

import pytest

from tests.cli.registered import KEYS, register
from tests.cli.steered import CONTROL, actions, control_events, register_obedient
from tests.loaded_programs import PROGRAM
from tests.system.stage import eventually

if TYPE_CHECKING:
    import redis

    from tests.cli.terminal import Terminal
    from tests.system.stage import Stage

WHY = ("--reason", "the API is being moved")


def test_a_paused_fleet_takes_nothing_and_goes_on_when_it_is_resumed(stage: Stage) -> None:
    stage.worker()
    stage.worker()

    said = stage.lock_worker("pause", *WHY)
    jobs = [stage.send(f"c-{number}") for number in range(20)]
    stage.worker()  # one that starts later obeys too

    assert said.splitlines() == [
        "The fleet takes no jobs until it is resumed (lock-worker resume).",
        "2 of 2 workers obey.",
    ]
    eventually(lambda: "3 of 3 workers obey." in stage.lock_worker("pause", *WHY), "a late worker that obeys")
    assert stage.events() == []
    assert stage.api.calls() == []

    assert "3 of 3 workers obey." in stage.lock_worker("resume", "--reason", "it was moved")

    events = stage.wait_events(20)
    assert {event["data"]["job_id"] for event in events} == set(jobs)
    assert set(actions(stage.redis)[:-1]) == {"paused"}
    assert actions(stage.redis)[-1] == "resumed"


def test_a_pause_ends_by_itself_when_its_time_is_over(stage: Stage) -> None:
    stage.worker()
    stage.lock_worker("pause", "--for", "3s", *WHY)

    job = stage.send("c-1")

    assert stage.outcome_of(job) == "locked"
    event = stage.event_of(job)
    (paused,) = control_events(stage.redis)
    assert event["data"]["received_at"] >= paused["data"]["until"]


def test_who_paused_why_when_and_until_is_noted_in_the_control_stream(
    terminal: Terminal, redis_client: redis.Redis
) -> None:
    ended = terminal.run("pause", "--for", "1h30m", *WHY, LOCK_WORKER_ACTOR="ann", EVENT_SOURCE="/staging")

    assert ended.returncode == 0, ended.stderr
    (event,) = control_events(redis_client)
    at, until = (datetime.fromisoformat(event["data"][name]) for name in ("at", "until"))
    assert event["type"] == "uk.co.managem.lock-worker.control.paused"
    assert (event["specversion"], event["source"], event["subject"]) == ("1.0", "/staging", "moderation.lock")
    assert (event["data"]["by"], event["data"]["reason"]) == ("ann", WHY[1])
    assert until - at == timedelta(hours=1, minutes=30)
    assert event["time"] == event["data"]["at"]


def test_without_a_name_it_is_the_login_name_that_is_noted(terminal: Terminal, redis_client: redis.Redis) -> None:
    terminal.run("pause", *WHY, LOGNAME="bob")

    assert [event["data"]["by"] for event in control_events(redis_client)] == ["bob"]


def test_without_workers_it_says_that_it_holds_for_those_that_start(terminal: Terminal) -> None:
    ended = terminal.run("pause", *WHY)

    assert ended.returncode == 0
    assert ended.stdout.endswith("\nNo worker is registered: the pause holds for workers that start.\n")


def test_workers_that_do_not_obey_in_time_are_named_and_the_pause_stands(
    terminal: Terminal, redis_client: redis.Redis
) -> None:
    register_obedient(redis_client, "lock-1@pod")
    register(redis_client, "lock-2@pod")

    ended = terminal.run("pause", "--json", *WHY)

    told = json.loads(ended.stdout)
    assert ended.returncode == 1
    assert told["workers"] == {"registered": 2, "obey": 1, "missing": ["lock-2@pod"]}
    assert (told["action"], told["done"], told["until"]) == ("paused", True, None)
    assert redis_client.hexists("lw:1:moderation.lock:controls", "pause")


def test_resume_ends_a_pause_of_the_apis_too(terminal: Terminal, redis_client: redis.Redis) -> None:
    redis_client.set("lw:1:moderation.lock:pause", "the API answered 429", px=600_000)
    register_obedient(redis_client, "lock-1@pod")

    ended = terminal.run("resume")

    assert ended.stdout == "The fleet goes on.\n1 of 1 worker obeys.\n"
    assert not redis_client.exists("lw:1:moderation.lock:pause")
    assert actions(redis_client) == ["resumed"]


def test_resume_says_who_paused_and_why(terminal: Terminal) -> None:
    terminal.run("pause", *WHY, LOCK_WORKER_ACTOR="ann")

    first, _ = terminal.run("resume").stdout.splitlines()

    assert first.startswith("The fleet goes on. It was paused by ann at 20")
    assert first.endswith("Z: the API is being moved")


def test_resume_without_a_pause_says_so_and_notes_nothing(terminal: Terminal, redis_client: redis.Redis) -> None:
    ended = terminal.run("resume")

    assert (ended.returncode, ended.stdout.splitlines()[0]) == (0, "There was no pause.")
    assert actions(redis_client) == []


def test_of_two_operators_at_once_each_is_noted_and_one_pause_stands(
    terminal: Terminal, redis_client: redis.Redis
) -> None:
    with (
        terminal.start("pause", *WHY, LOCK_WORKER_ACTOR="ann") as one,
        terminal.start("pause", *WHY, LOCK_WORKER_ACTOR="bob") as other,
    ):
        assert (one.wait(60), other.wait(60)) == (0, 0)

    assert sorted(event["data"]["by"] for event in control_events(redis_client)) == ["ann", "bob"]
    assert terminal.run("resume").stdout.startswith("The fleet goes on.")
    assert terminal.run("resume").stdout.startswith("There was no pause.")


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ([], "Missing option '--reason'"),
        (["--reason", " "], "--reason is blank: say why"),
        (["--reason", "x" * 1001], "--reason has 1,001 characters: write 1,000 at most"),
        ([*WHY, "--for", "soon"], "--for soon: write a time such as 90s, 10m, 1h30m or 2d"),
        ([*WHY, "--for", "90"], "--for 90: write a time such as 90s, 10m, 1h30m or 2d"),
        ([*WHY, "--for", ""], "--for : write a time such as 90s, 10m, 1h30m or 2d"),
        ([*WHY, "--for", "0s"], "--for 0s: must be over 0 and at most 365d"),
        ([*WHY, "--for", "366d"], "--for 366d: must be over 0 and at most 365d"),
        ([*WHY, "--for", "-1m"], "--for -1m: write a time"),
    ],
)
def test_a_wrong_option_is_named_with_what_to_write(
    terminal: Terminal, redis_client: redis.Redis, arguments: list[str], told: str
) -> None:
    ended = terminal.run("pause", *arguments)

    assert ended.returncode == 2
    assert told in " ".join(ended.stderr.split())
    assert redis_client.keys() == []


def test_a_reason_that_is_no_text_is_refused(terminal: Terminal) -> None:
    ended = subprocess.run(
        ["/bin/sh", "-c", "exec lock-worker pause --reason \"$(printf 'a\\377b')\""],
        capture_output=True,
        env={**terminal.environment, "PATH": f"{PROGRAM.parent}:/usr/bin:/bin"},
        check=False,
    )

    assert ended.returncode == 2
    assert b"--reason holds bytes that are no UTF-8" in b" ".join(ended.stderr.split())


def test_an_actor_that_cannot_be_printed_is_refused_as_a_setting(terminal: Terminal) -> None:
    ended = terminal.run("pause", *WHY, LOCK_WORKER_ACTOR="an\x1bn")

    assert ended.returncode == 2
    assert "LOCK_WORKER_ACTOR: must be printable characters" in ended.stderr


def test_what_is_interrupted_says_that_the_pause_stands(terminal: Terminal, redis_client: redis.Redis) -> None:
    register(redis_client, "lock-1@pod")
    running = terminal.start("pause", *WHY, stderr=subprocess.PIPE)
    eventually(lambda: redis_client.exists(CONTROL), "the event of the pause")

    running.terminate()
    _, said = running.communicate(timeout=60)

    assert running.returncode == 130
    assert said.decode() == (
        "lock-worker: interrupted\nThe fleet takes no jobs until it is resumed (lock-worker resume). "
        "Whether all workers obey was not awaited.\n"
    )


def test_a_closed_pipe_is_reported_with_what_was_done(terminal: Terminal, redis_client: redis.Redis) -> None:
    with terminal.start("pause", *WHY, stderr=subprocess.PIPE) as running:
        assert running.stdout is not None
        running.stdout.close()
        assert running.stderr is not None
        said = running.stderr.read().decode()
        assert running.wait(60) == 1

    assert said.startswith("lock-worker: standard output was closed\nThe fleet takes no jobs until")
    assert actions(redis_client) == ["paused"]


def test_on_a_terminal_it_shows_that_it_waits(terminal: Terminal, redis_client: redis.Redis) -> None:
    register(redis_client, "lock-1@pod")
    with terminal.screen("pause", *WHY) as screen:
        screen.wait_for("waiting for the workers")
        register_obedient(redis_client, "lock-1@pod")
        screen.wait_for("1 of 1 worker obeys.")
        assert screen.wait() == 0


def test_a_worker_whose_registration_says_nothing_of_controls_is_named_as_one_that_does_not_obey(
    terminal: Terminal, redis_client: redis.Redis
) -> None:
    register_obedient(redis_client, "new")
    old = f'{int(time.time() * 1000)} digest {{"node": "lock-1@pod", "queues": ["moderation.lock"], "settings": {{}}}}'
    redis_client.hset(KEYS.workers, "old", old)

    ended = terminal.run("pause", *WHY)

    assert ended.returncode == 1
    assert "1 of 2 workers obey. Not seen to obey: old." in ended.stdout
