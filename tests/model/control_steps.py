"""What operators ask for, and what becomes of the jobs that it is for: pauses, holds, cancels, and limits of rules."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import hypothesis.strategies as st
from hypothesis import event
from hypothesis.stateful import precondition, rule

from tests.model import reference
from tests.model.reference import LONG_MS
from tests.model.steps import HOLDS, HOUR_MS, IDS, Hold, Steps, few, holds_of, limits, times
from worker.broker import maintenance_moves
from worker.broker.keys import digest
from worker.broker.records import ClaimAnswer

if TYPE_CHECKING:
    from collections.abc import Callable

holds_of_operators = st.sampled_from([*HOLDS])
#: A rule that has a limit, and its hold.
LIMITED = "r-1"
HOLD_OF_LIMITED = next(hold for hold, control in HOLDS.items() if control.selector.rule == LIMITED)


class ControlSteps(Steps):
    """The steps of operators, and those of workers about what operators asked for."""

    @precondition(lambda self: self.steps % 3 == 1)
    @rule(what=st.runner().flatmap(lambda machine: st.sampled_from(machine._actions())))
    def an_operator_acts(self, what: Callable[[], None]) -> None:
        what()
        self._check(what.__name__)

    def _actions(self) -> list[Callable[[], None]]:
        """What operators, and time, may do now about what they asked for."""
        found = [self.an_operator_pauses, self.an_operator_pauses_for_a_time]
        if self.model.controls.has_pause:
            found += [self.an_operator_resumes, self.an_operator_resumes]
        if self.model.controls.is_pausing:
            found.append(self.the_pause_has_lasted)
            if self.bench.run("HGET", self.bench.keys.controls, "paused_until") != b"0":
                found.append(self.the_pause_is_over)
        if any(not is_over for is_over in self.model.controls.holds.values()):
            found.append(self.the_time_of_a_hold_is_over)
        if self.model.on_hold:
            found.append(self.a_job_was_on_hold_for_long)
        if self.model.controls.cancelled:
            found.append(self.cancelled_ids_are_remembered_no_longer)
        return found

    def an_operator_pauses(self) -> None:
        self._steer(self._wait(self.bench.control("pause")), is_done=True)
        self.model.pause()

    def an_operator_pauses_for_a_time(self) -> None:
        until_ms = self.bench.now_ms() + HOUR_MS
        self._steer(self._wait(self.bench.control("pause", until_ms=until_ms)), is_done=True)
        self.model.pause()

    def an_operator_resumes(self) -> None:
        """A second one finds nothing to resume."""
        for _ in range(2):
            self._steer(self._wait(self.bench.control("resume")), is_done=self.model.resume())

    def the_pause_has_lasted(self) -> None:
        self.bench.run("HINCRBY", self.bench.keys.controls, "paused_at", -LONG_MS)
        self.model.pause_for_long()

    def the_pause_is_over(self) -> None:
        self.bench.run("HSET", self.bench.keys.controls, "paused_until", self.bench.now_ms())
        self.model.end_pause()

    def the_time_of_a_hold_is_over(self) -> None:
        hold = min(hold for hold, is_over in self.model.controls.holds.items() if not is_over)
        over = replace(HOLDS[hold], note=replace(HOLDS[hold].note, until_ms=self.bench.now_ms()))
        self.bench.run("HSET", self.bench.keys.controls, over.field, over.to_json())
        self.model.controls.holds[hold] = True

    def a_job_was_on_hold_for_long(self) -> None:
        _, ref = min(self.model.on_hold)
        self.bench.run("HINCRBY", self.bench.keys.record_prefix + ref, "held_at", -LONG_MS)
        self.model.records[ref].held_at -= 1

    def cancelled_ids_are_remembered_no_longer(self) -> None:
        keys = [self.bench.keys.cancelled_prefix + digest(each) for each in self.model.controls.cancelled]
        self.bench.run("DEL", self.bench.keys.cancelled, *keys)
        self.model.controls.cancelled.clear()

    @rule(hold=holds_of_operators, is_timed=st.booleans(), is_released=st.booleans())
    def hold_jobs_of_a_kind(self, hold: str, *, is_timed: bool, is_released: bool) -> None:
        control = HOLDS[hold]
        if is_released:
            self._steer(self._wait(self.bench.control("remove", control)), is_done=self.model.remove_hold(hold))
        else:
            until_ms = self.bench.now_ms() + HOUR_MS if is_timed else 0
            control = replace(control, note=replace(control.note, until_ms=until_ms))
            self._steer(self._wait(self.bench.control("set", control)), is_done=True)
            self.model.set_hold(hold)
        self._check("hold_jobs_of_a_kind")

    @rule(ids=st.lists(st.sampled_from(IDS), min_size=1, max_size=2), is_new_only=st.booleans(), is_seen=st.booleans())
    def cancel(self, ids: list[str], *, is_new_only: bool, is_seen: bool) -> None:
        """By job ids, before their jobs are sent or after; workers may see it before they have ended theirs."""
        before = self.model.controls.version
        version = self._wait(self.bench.cancel(*map(digest, ids), ttl_ms=HOUR_MS, is_new_only=is_new_only))
        is_news = self.model.cancel(ids, is_new_only=is_new_only)
        assert version > before if is_news else version == before
        self.model.controls.version = version
        for hold in self.held if is_seen else ():
            if hold.message.id in self.model.controls.cancelled and hold.claimed is ClaimAnswer.GO:
                hold.claimed = ClaimAnswer.CANCELLED
        self._check("cancel")

    def _steer(self, answer: list[int], *, is_done: bool) -> None:
        version, done = answer
        assert bool(done) == is_done
        assert version > self.model.controls.version if is_done else version == self.model.controls.version
        self.model.controls.version = version

    @precondition(lambda self: bool(self.held))
    @rule(
        holds=holds_of(lambda machine: machine.held), of=holds_of_operators, calls=few,
        progress=st.sampled_from([b"", b"c"]), repeats=times,
    )  # fmt: skip
    def put_on_hold(self, holds: list[Hold], of: str, calls: int, progress: bytes, repeats: int) -> None:
        """A worker may be late: the hold that it knew of may be released by now."""
        for hold in holds:
            hold.job.attempts += calls
            hold.job.progress = progress
        for _ in range(repeats):
            answers = self._wait(self.bench.moves.hold([(hold.job, of) for hold in holds]))
            assert answers == self.model.hold(
                [(hold.job.ref, hold.job.lease_token, hold.job.attempts, progress, of) for hold in holds]
            )
        for hold in holds:
            self._forget(hold)
        self._check("put_on_hold")

    @precondition(lambda self: bool(self.model.on_hold))
    @rule(at_most=limits, repeats=times)
    def release_held(self, at_most: int, repeats: int) -> None:
        for _ in range(repeats):
            with self._limits(maintenance_moves, RELEASE_HELD_JOBS=at_most):
                released = self._wait(self.bench.maintenance.release_held())
            assert released == self.model.release_held(at_most)
            event(f"release_held: {bool(released)}")
        self._check("release_held")

    @precondition(lambda self: bool(self.model.on_hold or self.model.delayed or self.model.due))
    @rule(
        refs=st.runner().flatmap(
            lambda machine: st.lists(st.sampled_from(machine._put_off()), min_size=1, max_size=4)
        ),
        repeats=times,
    )  # fmt: skip
    def wake(self, refs: list[str], repeats: int) -> None:
        """A command that cancels jobs read them before; meanwhile others may have made them ready."""
        holds = {ref: hold for hold, ref in self.model.on_hold}
        members = [("held", f"{holds[ref]}:{ref}", ref) if ref in holds else ("delayed", ref, ref) for ref in refs]
        for _ in range(repeats):
            woken = self._wait(self.bench.wake(*members, ("held", "nobody's:job", "job"), ("delayed", "job", "job")))
            assert woken == self.model.wake(refs)
        self._check("wake")

    def _put_off(self) -> list[str]:
        """Jobs that are on hold or wait."""
        return sorted({*self.model.delayed, *self.model.due, *(ref for _, ref in self.model.on_hold)})

    @precondition(lambda self: bool(self.held))
    @rule(holds=holds_of(lambda machine: machine.held), limit=st.integers(0, 3), repeats=times)
    def count_rules(self, holds: list[Hold], limit: int, repeats: int) -> None:
        """Before the first call of jobs of one rule; a worker may have lost some of them by now."""
        jobs = list({hold.job.ref: hold for hold in holds}.values())
        names = [(hold.job.ref, hold.job.lease_token) for hold in jobs]
        for _ in range(repeats):
            before = self.model.controls.version
            counted = self.bench.count_rules({LIMITED: [hold.job for hold in jobs]}, limit=limit, window_ms=HOUR_MS)
            answer = self.model.count_rules(names, hold=HOLD_OF_LIMITED, limit=limit)
            assert self._wait(counted) == [answer]
            event(f"count_rules: {answer}")
            version = int(self.bench.run("HGET", self.bench.keys.controls, "version") or 0)
            assert version > before if answer == reference.HELD_BY_THIS_CALL else version == before
            self.model.controls.version = version
        self._check("count_rules")
