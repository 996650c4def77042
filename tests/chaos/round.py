"""One round: set the stage, play the plan, heal everything, wait until no job is left, and collect what happened."""

from __future__ import annotations

import json
import time
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any

from redis.backoff import NoBackoff
from redis.retry import Retry

from sandbox.server_binaries import available_servers
from tasks.history import HOLD, MAX_ENTRIES
from tests.chaos.api_host import ApiHost
from tests.chaos.conductor import Conductor
from tests.chaos.fleet import Fleet
from tests.chaos.history import DeadLetter, Event, History, RuleHold
from tests.chaos.invariants import Violation, violations
from tests.chaos.names import CONTROL, DEAD, RESULTS
from tests.chaos.operators import Operators
from tests.chaos.producers import Producers
from tests.chaos.servers import start_servers
from tests.chaos.targets import ATTEMPT_TIMEOUT_SECONDS, TARGETS, Surroundings

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from redis import Redis

    from tests.chaos.plan import Plan
    from tests.chaos.servers import Servers
    from tests.chaos.targets import Target

_CLIENT_OPTIONS: dict[str, Any] = {"socket_timeout": 5.0, "socket_connect_timeout": 5.0}
_START_SECONDS = 60.0
_STOP_SECONDS = 30.0
_LOOK_SECONDS = 0.05
#: So many times as long as nothing may move.
_MAX_DRAINS = 5


@dataclass(slots=True)
class Outcome:
    """A round that is over."""

    plan: Plan
    history: History
    violations: list[Violation]
    started: int
    seconds: float
    folder: Path
    phases: dict[str, float] = field(default_factory=dict)


def run_round(plan: Plan, folder: Path, older: Path | None = None) -> Outcome:
    """Run a round; its logs are left in the folder. With ``older``, every second worker is of the release in there."""
    target = TARGETS[plan.target]
    began = time.monotonic()
    phases: dict[str, float] = {}

    def passed(phase: str) -> None:
        phases[phase] = time.monotonic() - began - sum(phases.values())

    with ExitStack() as stack:
        servers = stack.enter_context(start_servers(plan.topology, _binary(plan.server)))
        stack.callback(lambda: _keep_logs(servers, folder))
        client = stack.enter_context(servers.client(retry=Retry(NoBackoff(), 2), **_CLIENT_OPTIONS))
        api = stack.enter_context(ApiHost("token-0"))
        token_file = folder / "token"
        token_file.write_text("token-0\n")
        producers = Producers(plan, servers)
        conductor = Conductor(
            plan, target, servers=servers, client=client, api=api, token_file=token_file, producers=producers
        )
        conductor.calm()
        environment = partial(target.environment, plan, Surroundings(servers.url, api.api.url, token_file))
        fleet = Fleet(folder, target.arguments(plan), environment, conductor.ended, older=older)
        stack.callback(fleet.close)
        fleet.start(plan.pods)
        _wait_ready(fleet)
        history = History(plan, time.time(), ATTEMPT_TIMEOUT_SECONDS)
        passed("start")

        operators = Operators(plan, servers, producers, lambda: fleet.living)
        stack.callback(producers.stop)
        producers.start()
        stack.callback(operators.stop)
        operators.start()
        conductor.play(fleet)
        passed("faults")

        fleet.thaw()
        servers.wait_healthy()
        _drain(target, client, lambda: producers.are_done and operators.are_done, fleet)
        passed("drain")

        producers.stop()
        operators.stop()
        fleet.stop(_STOP_SECONDS)
        passed("stop")

        history.messages, history.losses, history.ends = producers.messages, conductor.losses, fleet.ends
        history.steered, history.commands = operators.steered, operators.ran
        history.failovers = conductor.failovers
        history.calls, history.away, history.late = api.calls(), api.away, api.late
        _read_redis(history, target, client)
    found = violations(history)
    passed("check")
    seconds = time.monotonic() - began
    return Outcome(plan, history, found, fleet.started, seconds, folder, phases)


def _read_redis(history: History, target: Target, client: Redis) -> None:
    """Note what stands in Redis when all is over."""
    history.left, history.strays = target.left(client), target.strays(client)
    history.counters = target.counters(client)
    history.events = list(_events(client))
    history.dead_letters = [DeadLetter(fields[b"event"], fields[b"message"]) for _, fields in _stream(client, DEAD)]
    actions = [(_moment(entry), json.loads(fields[b"event"])) for entry, fields in _stream(client, CONTROL)]
    history.trail = [(event["type"].rpartition(".")[2], event["data"]["reason"]) for _, event in actions]
    history.held_rules = [
        RuleHold(event["data"]["selector"]["rule"], at) for at, event in actions if event["type"].endswith(".rule_held")
    ]


def _keep_logs(servers: Servers, folder: Path) -> None:
    for number, server in enumerate(servers.all):
        (folder / f"redis-{number}.log").write_text(server.log())


def _binary(name: str) -> Any:
    servers = available_servers()
    return next((server for server in servers if server.name == name), servers[0] if servers else None)


def _wait_ready(fleet: Fleet) -> None:
    deadline = time.monotonic() + _START_SECONDS
    while not fleet.are_ready:
        if fleet.ends or time.monotonic() > deadline:
            raise RuntimeError("the workers did not start:\n" + "\n".join(end.log_tail for end in fleet.ends))
        fleet.tend()
        time.sleep(_LOOK_SECONDS)


def _drain(target: Target, client: Redis, are_done: Callable[[], bool], fleet: Fleet) -> None:
    """Wait until all has been sent and done and no job is left, or nothing moves any more.

    What is left then is a violation, and so is what goes round in circles.
    """
    before: object = None
    deadline = 0.0
    end = time.monotonic() + _MAX_DRAINS * target.drain_seconds
    while time.monotonic() < end:
        is_all_sent = are_done()  # asked first: the last message may be sent while we look at what is left
        left = target.left(client)
        if is_all_sent and not any(left.values()):
            return
        now = left, client.xlen(RESULTS)
        if now != before:
            before, deadline = now, time.monotonic() + target.drain_seconds
        elif time.monotonic() > deadline:
            return
        fleet.tend()
        time.sleep(_LOOK_SECONDS)


def _events(client: Redis) -> Iterator[Event]:
    for entry, fields in _stream(client, RESULTS):
        body = fields[b"event"]
        found = json.loads(body)
        error = found["data"]["error"]
        steps = found["data"].get("history") or ()
        yield Event(
            id=found["id"],
            job_id=found["data"]["job_id"],
            subject=found.get("subject"),
            at=_moment(entry),
            outcome=found["data"]["outcome"],
            attempts=found["data"]["attempts"],
            problem=None if error is None else error["type"],
            is_failure=found["type"].endswith("_failed"),
            body=body,
            tells_of_a_call=any(step["what"] == "call" for step in steps),
            was_on_hold=len(steps) >= MAX_ENTRIES or any(step["reason"] == HOLD for step in steps),
        )


def _moment(entry: bytes) -> float:
    """When an entry was added to its stream, cut to milliseconds."""
    return int(entry.partition(b"-")[0]) / 1000


def _stream(client: Redis, name: str) -> Iterator[tuple[bytes, dict[bytes, bytes]]]:
    found: Any = client.xrange(name)
    yield from found
