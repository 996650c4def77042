"""Records of a newer layout: this version touches none of them, and a worker of that version ends them later."""

from __future__ import annotations

import re
from importlib.resources import files
from typing import TYPE_CHECKING

import pytest

from worker.broker import scripts
from worker.broker.keys import LAYOUT
from worker.broker.layout import newer_layout, note_layout

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

    from tests.broker.workbench import Workbench
    from worker.broker.records import Delivery

NEWER = str(LAYOUT + 1)


def rewrite(bench: Workbench, job: Delivery, layout: str = NEWER) -> Mapping[str, bytes]:
    """A worker of a newer version writes the record: the fields that this version knows may mean something else."""
    bench.run("HSET", bench.record_key(job), "layout", layout, "crashes", "many", "retry", "1")
    bench.run("HDEL", bench.record_key(job), "raw")
    return bench.record(job)


async def requeued(bench: Workbench, job: Delivery) -> None:
    await bench.moves.release([job])


async def retried(bench: Workbench, job: Delivery) -> None:
    await bench.delay(job, is_retry=True)
    bench.make_due(job)
    await bench.promote()


async def suspected(bench: Workbench, job: Delivery) -> None:
    await bench.crash(job)
    (again,) = bench.take(1).jobs
    await bench.crash(again)


@pytest.mark.parametrize("make_ready", [requeued, retried, suspected])
async def test_a_take_sets_such_a_job_aside_and_takes_the_others(
    bench: Workbench, make_ready: Callable[[Workbench, Delivery], Awaitable[None]]
) -> None:
    job = bench.take_one(b"a job")
    await make_ready(bench, job)
    before = rewrite(bench, job)
    bench.push(b"another job")

    taken = bench.take()

    assert [each.raw for each in taken.jobs] == [b"another job"]
    assert bench.delayed() == [job.ref]
    assert bench.record(job) == before
    assert bench.counters().get("vanished", 0) == 0


async def test_a_promote_leaves_it_where_it_is_and_counts_it(bench: Workbench) -> None:
    newer, older = bench.take_one(b"newer"), bench.take_one(b"older")
    await bench.delay(newer, older)
    before = rewrite(bench, newer)
    bench.make_due(newer, older)

    promoted = await bench.promote()

    assert (promoted.count, promoted.set_aside) == (1, 1)
    assert (bench.delayed(), bench.again()) == ([newer.ref], [older.ref])
    assert bench.record(newer) == before
    assert promoted.next_due_ms


async def test_its_lease_is_prolonged_when_it_is_over_and_no_crash_is_counted(bench: Workbench) -> None:
    newer, older = bench.take_one(b"newer"), bench.take_one(b"older")
    before = rewrite(bench, newer)

    recovered = await bench.crash(newer, older)

    assert recovered.count == 1
    assert recovered.poisoned == []
    assert (bench.in_flight(), bench.again()) == ([newer.ref], [older.ref])
    assert bench.record(newer) == before
    assert (bench.lease_end(newer) or 0) > bench.now_ms()


async def test_it_does_not_expire(bench: Workbench) -> None:
    newer, older = bench.take_one(b"newer"), bench.take_one(b"older")
    await bench.moves.release([newer])
    await bench.moves.release([older])
    bench.make_too_old(newer, older)
    before = rewrite(bench, newer)

    expired = await bench.expire()

    assert [job.raw for job in expired] == [b"older"]
    assert bench.record(newer) == before
    assert list(bench.deadlines()) == [newer.ref]
    assert await bench.expire() == []  # it is looked at again later
    bench.take()  # which sets it aside
    assert bench.delayed() == [newer.ref]


async def test_a_released_hold_makes_it_ready_for_a_take_to_set_it_aside(bench: Workbench) -> None:
    job = bench.take_one()
    await bench.moves.hold([(job, "0" * 32)])
    before = rewrite(bench, job)

    assert await bench.maintenance.release_held() == 1

    assert bench.take().jobs == []
    assert bench.delayed() == [job.ref]
    assert bench.record(job) == before


async def test_no_attempt_is_given_back_to_it(bench: Workbench) -> None:
    job = bench.take_one()
    job.attempts = 3
    await bench.moves.release([job])
    before = rewrite(bench, job)

    await bench.moves.restore_attempts([(job.ref, 1)])

    assert bench.record(job) == before
    bench.take()


@pytest.mark.parametrize("layout", ["a word", "", "-1", "1e3", "9" * 30])
async def test_what_is_no_number_is_left_alone_too(bench: Workbench, layout: str) -> None:
    job = bench.take_one()
    await bench.moves.release([job])
    before = rewrite(bench, job, layout)

    assert bench.take().jobs == []
    assert bench.record(job) == before


async def test_a_record_that_tells_the_layout_of_this_version_is_read(bench: Workbench) -> None:
    job = bench.take_one(b"a job")
    await bench.moves.release([job])
    bench.run("HSET", bench.record_key(job), "layout", LAYOUT)

    assert [each.raw for each in bench.take().jobs] == [b"a job"]


def test_the_scripts_read_the_same_layout_as_python() -> None:
    prelude = (files(scripts.__package__) / "lua" / "prelude.lua").read_text("utf-8")

    assert re.findall(r"^local layout = (\d+)$", prelude, re.MULTILINE) == [str(LAYOUT)]


# --- the look at the start ---


def test_a_queue_that_no_worker_used_is_fit(bench: Workbench) -> None:
    assert newer_layout(bench.client, [bench.keys.queue], "1.0") is None


def test_each_version_notes_its_layout_and_reads_its_own(bench: Workbench) -> None:
    note_layout(bench.client, [bench.keys.queue], "1.0")

    assert bench.run("HGET", bench.keys.maintenance, "layout") == f"{LAYOUT} 1.0".encode()
    assert newer_layout(bench.client, [bench.keys.queue], "1.0") is None


def test_a_newer_layout_is_told_with_the_version_that_writes_it_and_stays_noted(bench: Workbench) -> None:
    bench.run("HSET", bench.keys.maintenance, "layout", f"{NEWER} 9.1")

    note_layout(bench.client, [bench.keys.queue], "1.0")
    found = newer_layout(bench.client, ["another queue", bench.keys.queue], "1.0")

    assert found is not None
    assert f"written by lock-worker 9.1 in layout {NEWER}" in found.problem
    assert f"this is lock-worker 1.0, which reads layout {LAYOUT}" in found.problem
    assert "Start lock-worker 9.1 again" in found.advice


@pytest.mark.parametrize("noted", ["", "a word", b"\xff", " 2", "-3"])
def test_a_note_of_something_else_is_replaced(bench: Workbench, noted: str | bytes) -> None:
    bench.run("HSET", bench.keys.maintenance, "layout", noted)

    assert newer_layout(bench.client, [bench.keys.queue], "1.0") is None
    note_layout(bench.client, [bench.keys.queue], "1.0")

    assert bench.run("HGET", bench.keys.maintenance, "layout") == f"{LAYOUT} 1.0".encode()


@pytest.mark.usefixtures("overwritten")
def test_a_key_of_another_type_is_not_judged_here(bench: Workbench) -> None:
    bench.run("SET", bench.keys.maintenance, "text")

    assert newer_layout(bench.client, [bench.keys.queue], "1.0") is None
    note_layout(bench.client, [bench.keys.queue], "1.0")

    assert bench.run("GET", bench.keys.maintenance) == b"text"
