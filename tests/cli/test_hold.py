"""``lock-worker hold``, ``release`` and ``holds``: jobs of one kind are set aside, counted, and go on."""

from __future__ import annotations

import json
import subprocess
from typing import TYPE_CHECKING, Any

import pytest

from sandbox.faults import Respond
from sandbox.script import Rule, Script
from tests.cli.registered import register
from tests.cli.steered import actions, control_events, register_obedient
from tests.system.stage import eventually
from worker.broker.keys import Keys
from worker.message.selector import Selector

if TYPE_CHECKING:
    import redis

    from tests.cli.terminal import Terminal
    from tests.system.stage import Stage

WHY = ("--reason", "it locks too much")
KEYS = Keys("moderation.lock")


def held(stage: Stage) -> list[dict[str, Any]]:
    """The holds, as programs read them."""
    found: list[dict[str, Any]] = json.loads(stage.lock_worker("holds", "--json"))["holds"]
    return found


def send(stage: Stage, number: int, **fields: Any) -> str:
    return stage.send(f"c-{number}", fields=fields)


def test_jobs_of_a_rule_on_hold_make_no_call_while_others_go_on(stage: Stage) -> None:
    stage.worker()
    stage.lock_worker("hold", "--rule", "r-7", *WHY)
    mine = [send(stage, number, rule_id="r-7") for number in range(10)]
    others = [send(stage, 100 + number, rule_id="r-8") for number in range(10)]

    events = stage.wait_events(10)
    eventually(lambda: held(stage)[0]["held"] == 10, "ten held jobs")

    assert {event["data"]["job_id"] for event in events} == set(others)
    assert {call.target for call in stage.api.calls()} == {b"/conversations/c-%d/lock" % (100 + n) for n in range(10)}

    said = stage.lock_worker("release", "--rule", "r-7", "--reason", "mended")

    assert said.startswith("The hold of jobs that match --rule r-7 is ended. Its jobs go on. It was made by ")
    events = stage.wait_events(20)
    assert {event["data"]["job_id"] for event in events} == {*mine, *others}
    assert held(stage) == []
    assert actions(stage.redis) == ["held", "released"]


@pytest.mark.parametrize(
    ("options", "matching", "other"),
    [
        (["--actor", "bot"], {"actor": "bot"}, {"actor": "ann"}),
        (["--policy", "p-2"], {"policies": ["p-1", "p-2"]}, {"policies": ["p-1"]}),
        (["--conversation", "c-1"], {}, {}),
        (["--rule", "r", "--actor", "bot"], {"rule_id": "r", "actor": "bot"}, {"rule_id": "r", "actor": "ann"}),
    ],
)
def test_all_options_that_are_given_must_match(
    stage: Stage, options: list[str], matching: dict[str, Any], other: dict[str, Any]
) -> None:
    stage.worker()
    stage.lock_worker("hold", *options, *WHY)

    send(stage, 1, **matching)
    other_job = send(stage, 2, **other)

    assert stage.outcome_of(other_job) == "locked"
    eventually(lambda: held(stage)[0]["held"] == 1, "a held job")
    assert len(stage.events()) == 1


def test_a_worker_that_starts_later_obeys(stage: Stage) -> None:
    stage.lock_worker("hold", "--rule", "r-7", *WHY)
    send(stage, 1, rule_id="r-7")

    stage.worker()

    eventually(lambda: held(stage)[0]["held"] == 1, "a held job")
    assert stage.api.calls() == []


def test_jobs_go_on_by_themselves_when_the_time_of_the_hold_is_over(stage: Stage) -> None:
    stage.worker()
    stage.lock_worker("hold", "--rule", "r-7", "--for", "3s", *WHY)

    job = send(stage, 1, rule_id="r-7")

    assert stage.outcome_of(job) == "locked"
    (event,) = control_events(stage.redis)
    assert stage.event_of(job)["data"]["finished_at"] > event["data"]["until"]
    assert held(stage) == []


def test_a_job_that_waits_for_its_next_call_is_held_before_it(stage: Stage) -> None:
    stage.api.script = Script(rules=(Rule(then=Respond(status=500, headers={"Retry-After": "10"}), times=1),))
    stage.worker()
    job = send(stage, 1, rule_id="r-7")
    eventually(lambda: stage.redis.zcard(KEYS.delayed), "a job that waits for its next call")

    stage.lock_worker("hold", "--rule", "r-7", *WHY)

    eventually(lambda: stage.redis.zcard(KEYS.held) == 1, "a held job", seconds=40)
    stage.lock_worker("release", "--rule", "r-7")
    assert stage.outcome_of(job) == "locked"
    assert stage.event_of(job)["data"]["attempts"] == len(stage.api.calls()) == 2


def test_the_expiry_of_a_job_is_looked_at_when_it_is_released(stage: Stage) -> None:
    stage.worker()
    stage.lock_worker("hold", "--rule", "r-7", *WHY)
    job = stage.send("c-1", fields={"rule_id": "r-7"}, expires=2)
    eventually(lambda: held(stage)[0]["held"] == 1, "a held job")
    seconds, _ = stage.redis.time()
    eventually(lambda: stage.redis.time()[0] > seconds + 2, "the expiry")

    stage.lock_worker("release", "--rule", "r-7")

    assert stage.outcome_of(job) == "expired"
    assert stage.api.calls() == []


def test_holds_are_counted_over_all_queues_of_the_fleet(terminal: Terminal, redis_client: redis.Redis) -> None:
    register_obedient(redis_client, "lock-1@pod")
    register(redis_client, "lock-2@pod", ["moderation.lock", "second"])
    register_obedient(redis_client, "lock-2@pod")
    redis_client.zadd(KEYS.queues, {"second": 1})
    terminal.run("hold", "--rule", "r-7", *WHY, LOCK_WORKER_ACTOR="ann")
    terminal.run("hold", "--rule", "r-8", "--for", "2d", *WHY, LOCK_WORKER_ACTOR="bob")
    seven, eight = (Selector(rule=rule).digest for rule in ("r-7", "r-8"))
    redis_client.zadd(KEYS.held, {f"{seven}:{number}": 0 for number in range(1500)})
    redis_client.zadd(Keys("second").held, {f"{seven}:a": 0, f"{eight}:b": 0, "gone:c": 0})

    told = json.loads(terminal.run("holds", "--json").stdout)
    shown = terminal.run("holds").stdout

    first, second = told["holds"]
    assert (first["selector"], first["held"], first["by"]) == ({"rule": "r-7"}, 1501, "ann")
    assert (first["reason"], first["until"]) == (WHY[1], None)
    assert (second["selector"], second["held"], second["by"]) == ({"rule": "r-8"}, 1, "bob")
    assert second["until"] > second["at"]
    assert (told["going_on"], told["cancels"], told["pause"]) == (1, [], None)
    assert "--rule r-7" in shown
    assert "1,501" in shown
    assert "1 job of holds that are ended goes on." in shown


def test_holds_shows_the_pause_too(terminal: Terminal) -> None:
    assert terminal.run("holds").stdout == "No jobs are held.\n"
    terminal.run("pause", *WHY, LOCK_WORKER_ACTOR="ann")

    assert "The fleet takes no jobs until it is resumed: paused by ann at 20" in terminal.run("holds").stdout
    assert json.loads(terminal.run("holds", "--json").stdout)["pause"]["by"] == "ann"


def test_a_hold_whose_time_is_over_is_not_listed_and_makes_room(terminal: Terminal, redis_client: redis.Redis) -> None:
    terminal.run("hold", "--rule", "r-7", "--for", "1s", *WHY)
    at, _ = redis_client.time()
    eventually(lambda: redis_client.time()[0] > at + 1, "the end of the hold")

    assert json.loads(terminal.run("holds", "--json").stdout)["holds"] == []
    terminal.run("hold", "--rule", "r-8", *WHY)
    fields: Any = redis_client.hkeys(KEYS.controls)
    assert sorted(field.decode() for field in fields) == [f"hold {Selector(rule='r-8').digest}", "version"]


def test_a_second_hold_takes_the_place_of_the_first_and_says_whose(
    terminal: Terminal, redis_client: redis.Redis
) -> None:
    terminal.run("hold", "--rule", "r-7", *WHY, LOCK_WORKER_ACTOR="ann")
    ended = terminal.run("hold", "--rule", "r-7", "--for", "1h", "--reason", "again", LOCK_WORKER_ACTOR="bob")

    assert "This takes the place of the hold by ann at 20" in ended.stdout
    (hold,) = json.loads(terminal.run("holds", "--json").stdout)["holds"]
    assert (hold["by"], hold["reason"]) == ("bob", "again")
    assert [event["data"]["selector"] for event in control_events(redis_client)] == [{"rule": "r-7"}] * 2


def test_a_release_of_what_is_not_held_says_so(terminal: Terminal, redis_client: redis.Redis) -> None:
    nothing = terminal.run("release", "--rule", "r-7")
    terminal.run("hold", "--rule", "r-8", *WHY)
    other = terminal.run("release", "--rule", "r-7")

    assert (nothing.returncode, other.returncode) == (1, 1)
    assert nothing.stderr == ("lock-worker: there is no hold of jobs that match --rule r-7\nThere is no hold at all.\n")
    assert "lock-worker holds lists what there is" in other.stderr
    assert actions(redis_client) == ["held"]


def test_too_many_holds_are_refused(terminal: Terminal, redis_client: redis.Redis) -> None:
    redis_client.hset(KEYS.controls, mapping={f"hold {number:032x}": "{}" for number in range(1000)})

    ended = terminal.run("hold", "--rule", "r-7", *WHY)

    assert ended.returncode == 1
    assert ended.stderr == (
        "lock-worker: there are 1,000 holds and cancels: end some with lock-worker release\nNothing was changed.\n"
    )
    assert actions(redis_client) == []


@pytest.mark.parametrize("command", ["hold", "release"])
@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ([], "say which jobs: --rule, --actor, --policy or --conversation"),
        (["--rule", ""], "--rule is empty, and would match no job"),
        (["--policy", "x" * 129], "--policy has 129 characters, and no job has over 128 there"),
        (["--conversation", "x" * 257], "--conversation has 257 characters, and no job has over 256 there"),
        (["--rule", "r-7", "--reason", " "], "--reason is blank"),
        (["--rule", "r-7", "--rule", "r-8"], "--rule is given 2 times, and a job must match all options: give it once"),
    ],
)
def test_a_wrong_selector_is_named_with_what_to_write(
    terminal: Terminal, redis_client: redis.Redis, command: str, arguments: list[str], told: str
) -> None:
    ended = terminal.run(command, *(() if "--reason" in arguments or command == "release" else WHY), *arguments)

    assert ended.returncode == 2
    assert told in " ".join(ended.stderr.split())
    assert redis_client.keys() == []


@pytest.mark.parametrize("rule", ["r 7", "it's --actor ann", "r\u202eevil\x1b\\'", "-r", " ", "\U000e0001x"], ids=ascii)
def test_the_release_that_status_names_is_one_that_a_shell_can_run(
    terminal: Terminal, redis_client: redis.Redis, rule: str
) -> None:
    terminal.run("hold", f"--rule={rule}", "--actor", "ann", *WHY)
    problems = json.loads(terminal.run("status", "--json").stdout)["problems"]
    (advice,) = (problem["advice"] for problem in problems if problem["code"] == "held")
    _, _, command = advice.partition("lock-worker ")

    words = subprocess.run(
        ["bash", "-c", f"printf '%s\\0' {command}"], capture_output=True, check=True, env={"LC_ALL": "C.UTF-8"}
    ).stdout.decode()
    ended = terminal.run(*words.split("\0")[:-1])

    assert ended.returncode == 0, ended.stderr
    assert actions(redis_client) == ["held", "released"]


def test_what_others_wrote_reaches_no_terminal_as_a_command(terminal: Terminal) -> None:
    terminal.run("hold", "--rule", "r\x1b]0;title\x07", "--reason", "a\x1b[2Jb")

    shown = terminal.run("holds").stdout

    assert "\x1b" not in shown
    assert "\\u001b]0;title\\u0007" in shown
