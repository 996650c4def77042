"""What holds for all moves alike needs a queue with something in every place, and every move with something to do."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

from worker.broker.keys import UNACKED, UNACKED_INDEX, digest
from worker.broker.move_limits import SUSPICIOUS_CRASHES
from worker.broker.records import Claim, Delay, Delivery
from worker.message.controls import Control, Note
from worker.message.selector import Selector

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from tests.broker.workbench import Workbench
    from worker.broker.script_calls import Command

ID, BINDING = digest("a job"), digest("a conversation")
#: Dead letters, and the messages they become.
LETTERS = (("1-1", b"one again"), ("1-2", b"two again"))
#: Jobs that a stock worker holds, by its tags.
UNACKED_JOBS = ((b"tag-1", b"one of a stock worker"), (b"tag-2", b"two of a stock worker"))
HOLD = Control("hold", Selector(rule="r-1"), Note("an operator", "a reason"))
OLD_HOLD = Control("hold", Selector(rule="r-0"), Note("an operator", "a reason"))
#: What a worker tells of itself.
TOLD = '{"queues": ["moderation.lock"]}'
#: Of the fleet's flow control, before the move.
VERSION = 7


@dataclass(frozen=True, slots=True)
class Scene:
    """The jobs that this worker holds, and two that wait."""

    dead_letter: Delivery
    copy: Delivery
    waiting: tuple[Delivery, Delivery]


async def set_scene(bench: Workbench, name: str) -> Scene:
    """Put jobs in every place of the queue, before the move of this name."""
    names = (
        b"again",
        b"retry",
        b"suspect",
        b"due",
        b"due retry",
        b"due suspect",
        b"waiting",
        b"lost",
        b"lost retry",
        b"near suspicion",
        b"nearly poisoned",
        b"dead letter",
        b"copy",
    )
    bench.push(*names)
    taken = bench.take(len(names)).jobs
    again, retry, suspect, due, due_retry, due_suspect, waiting, lost, lost_retry, near, nearly, dead_letter, copy = (
        taken
    )
    for job in (suspect, due_suspect):
        bench.run("HSET", bench.record_key(job), "crashes", SUSPICIOUS_CRASHES)
    bench.run("HSET", bench.record_key(near), "crashes", SUSPICIOUS_CRASHES - 1)
    bench.run("HSET", bench.record_key(nearly), "crashes", bench.broker_options.max_deliveries - 1)
    for job in (retry, lost_retry):
        bench.run("HSET", bench.record_key(job), "retry", 1)
    again.attempts = waiting.attempts = 2
    await bench.moves.release([again, retry, suspect])
    if name == "expire":
        bench.make_too_old(again, retry, suspect)
    await bench.delay(due, waiting, due_suspect)
    await bench.delay(due_retry, is_retry=True)
    bench.make_due(due, due_retry, due_suspect)
    bench.lapse(lost, lost_retry, near, nearly)
    bench.fleet_was_awake()
    for held in (dead_letter, copy):
        bench.run("ZADD", bench.keys.leases, bench.now_ms() + 10_000, held.ref)
    if name in PAST_THE_SUSPECT:  # another worker drains for it
        bench.run("SET", bench.keys.draining, "worker-2", "PX", 30_000)
    for priority in (0, 3, 6, 9):
        bench.push(b"new", priority=priority)
    bench.arrive(b"arrived")
    bench.run("SET", bench.broker_options.fleet.rate, 1, "PX", 30_000)
    bench.run(
        "HSET",
        bench.broker_options.fleet.limit,
        "version",
        VERSION,
        "epoch",
        1,
        "rate",
        0,
        "answered",
        3,
        "state",
        "old",
    )
    bench.run("HSET", bench.keys.lost_takes, "take7", bench.now_ms(), "long ago", 1)
    bench.run("PEXPIRE", bench.keys.lost_takes, 30_000)
    bench.run(
        "HSET", bench.keys.workers, "worker-2", f"{bench.now_ms()} another other", "worker-3", "1 another long ago"
    )
    bench.run("PEXPIRE", bench.keys.workers, 30_000)
    bench.run(
        "ZADD", bench.broker_options.fleet.queues, *(part for number in range(201) for part in (number, f"q-{number}"))
    )
    await bench.moves.claim([Claim(ID, BINDING)])
    bench.run("HSET", bench.keys.controls, "version", 1, OLD_HOLD.field, "{}")
    await bench.cancel(digest("a cancelled job"))
    if name in {"release_held", "wake"}:
        await bench.moves.hold([(dead_letter, "gone")])
    _leave_to_others(bench, name)
    return Scene(dead_letter, copy, (again, waiting))


def _leave_to_others(bench: Workbench, name: str) -> None:
    """What people, or stock workers, left for the moves of this name."""
    if name == "adopt":
        for tag, _ in UNACKED_JOBS:
            bench.run("HSET", UNACKED, tag, "what kombu keeps")
            bench.run("ZADD", UNACKED_INDEX, 1, tag)
    if name in {"replay", "discard"}:
        for entry, _ in LETTERS:
            bench.run("XADD", bench.broker_options.dead, entry, "event", b"an event", "message", b"a message")


async def _take(bench: Workbench, _: Scene) -> object:
    return bench.take(100, held=1, answered=2, failed=1)


async def _take_the_suspect(bench: Workbench, _: Scene) -> object:
    return bench.take(100, held=0)


async def _take_under_a_rate_limit(bench: Workbench, _: Scene) -> object:
    return bench.under(rate=1000.0).take(100, held=1)


async def _take_a_probe(bench: Workbench, _: Scene) -> object:
    return bench.take(1, held=1, is_probe=True, which_new="newest")


async def _throttle(bench: Workbench, _: Scene) -> object:
    return await bench.throttle(3.5, version=VERSION, epoch=2, pause=30)


async def _pause(bench: Workbench, _: Scene) -> None:
    await bench.pause(30)


async def _hold(bench: Workbench, scene: Scene) -> object:
    return await bench.moves.hold([(scene.dead_letter, HOLD.selector.digest), (scene.copy, "another")])


async def _release_held(bench: Workbench, _: Scene) -> object:
    return await bench.maintenance.release_held()


async def _pause_for_an_operator(bench: Workbench, _: Scene) -> object:
    return await bench.control("pause", until_ms=9_999_999_999_999)


async def _resume(bench: Workbench, _: Scene) -> object:
    return await bench.control("resume")


async def _set_a_hold(bench: Workbench, _: Scene) -> object:
    return await bench.control("set", HOLD)


async def _remove_a_hold(bench: Workbench, _: Scene) -> object:
    return await bench.control("remove", OLD_HOLD)


async def _cancel(bench: Workbench, _: Scene) -> object:
    return await bench.cancel(ID, digest("another job"))


async def _wake(bench: Workbench, scene: Scene) -> object:
    ref = scene.dead_letter.ref
    return await bench.wake(("delayed", scene.waiting[1].ref, scene.waiting[1].ref), ("held", f"gone:{ref}", ref))


async def _count_rules(bench: Workbench, scene: Scene) -> object:
    return await bench.count_rules({"a rule": [scene.dead_letter, scene.copy], "another": scene.waiting}, limit=1)


async def _sample(bench: Workbench, _: Scene) -> object:
    return await bench.sample()


async def _note_layout(bench: Workbench, _: Scene) -> object:
    return await bench.note_layout("1.0")


async def _state(bench: Workbench, _: Scene) -> object:
    return await bench.state()


async def _register(bench: Workbench, _: Scene) -> object:
    return await bench.fleet.register("worker-1", "a digest", TOLD)


async def _leave(bench: Workbench, _: Scene) -> object:
    return await bench.fleet.register("worker-2", "", "")


async def _restore_attempts(bench: Workbench, scene: Scene) -> None:
    await bench.moves.restore_attempts([(job.ref, 1) for job in scene.waiting])


async def _expire(bench: Workbench, _: Scene) -> object:
    return await bench.expire()


async def _claim(bench: Workbench, _: Scene) -> object:
    return await bench.moves.claim([Claim(ID, BINDING), Claim(digest("another job"), BINDING)])


async def _complete(bench: Workbench, scene: Scene) -> object:
    ends = [
        bench.completion(scene.dead_letter, job_id="a job", outcome="refused", is_dead_letter=True),
        bench.completion(scene.copy, event=b""),
    ]
    return await bench.moves.complete(ends)


async def _delay(bench: Workbench, scene: Scene) -> object:
    return await bench.moves.delay(
        [Delay(scene.dead_letter, 5, is_retry=True, deadline_ms=1, progress=b"{}"), Delay(scene.copy, 10)]
    )


async def _release(bench: Workbench, scene: Scene) -> object:
    return await bench.moves.release([scene.dead_letter, scene.copy])


async def _renew(bench: Workbench, scene: Scene) -> object:
    return await bench.maintenance.renew([scene.dead_letter, scene.copy])


async def _promote(bench: Workbench, _: Scene) -> object:
    return await bench.promote()


async def _replay(bench: Workbench, _: Scene) -> object:
    return bench.replay(LETTERS)


async def _discard(bench: Workbench, _: Scene) -> object:
    return bench.discard([entry for entry, _ in LETTERS])


async def _adopt(bench: Workbench, _: Scene) -> object:
    return bench.adopt(UNACKED_JOBS)


async def _recover(bench: Workbench, _: Scene) -> object:
    return await bench.recover()


async def _lost_takes(bench: Workbench, _: Scene) -> None:
    await bench.moves.note_lost_takes(["take8", "take9"])


Move: TypeAlias = "Callable[[Workbench, Scene], Awaitable[object]]"

#: By the script's name; in brackets the branch of it.
MOVES: dict[str, Move] = {
    "take": _take,
    "take (the suspect)": _take_the_suspect,
    "take (told to drain)": _take,
    "take (under a rate limit)": _take_under_a_rate_limit,
    "take (a probe)": _take_a_probe,
    "throttle": _throttle,
    "throttle (a pause alone)": _pause,
    "hold": _hold,
    "release_held": _release_held,
    "control": _set_a_hold,
    "control (remove)": _remove_a_hold,
    "control (pause)": _pause_for_an_operator,
    "control (resume)": _resume,
    "cancel": _cancel,
    "wake": _wake,
    "count_rules": _count_rules,
    "sample": _sample,
    "note_layout": _note_layout,
    "register": _register,
    "register (leave)": _leave,
    "restore_attempts": _restore_attempts,
    "expire": _expire,
    "claim": _claim,
    "complete": _complete,
    "delay": _delay,
    "release": _release,
    "renew": _renew,
    "promote": _promote,
    "recover": _recover,
    "replay": _replay,
    "discard": _discard,
    "lost_takes": _lost_takes,
    "adopt": _adopt,
}
#: The scripts that move nothing: they only read.
READS: dict[str, Move] = {"state": _state}
#: Those before which another worker drains for the suspect.
PAST_THE_SUSPECT = {"take", "take (under a rate limit)", "take (a probe)"}


def script_of(name: str) -> str:
    """The script behind a name in MOVES."""
    return name.partition(" ")[0]


class _CapturedError(Exception):
    """Carries a command away from where it would have been sent."""

    def __init__(self, command: Command) -> None:
        super().__init__(command)
        self.command = command


class _Capturing:
    """Stands where a client would, the blocking one and the other; sends nothing."""

    def execute_command(self, *command: Any) -> Any:
        raise _CapturedError(list(command))


async def command_of(name: str) -> Command:
    """The command that a move sends, for two jobs or ids; no server is asked."""
    from tests.broker.workbench import Workbench  # noqa: PLC0415

    client: Any = _Capturing()
    job = Delivery("take1.1", "take1", b"", 0, 0, 0, 0, 0.0, "moderation.lock")
    try:
        await (MOVES | READS)[name](Workbench(client, client), Scene(job, job, (job, job)))
    except _CapturedError as captured:
        return captured.command
    raise AssertionError(f"{name} sent nothing")


async def keys_of(name: str) -> list[str]:
    """The keys that a move declares to the server."""
    command = await command_of(name)
    return [str(key) for key in command[3 : 3 + int(command[2])]]
