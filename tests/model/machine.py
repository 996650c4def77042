"""Three workers, any order: the machine whose every step is made on a real server and in the model.

A worker here does what a real one does with what it holds, and may stop doing it after any step: it crashes (forgets
what it holds), stalls (goes on later with tokens that are over), loses an answer (makes the same call again), or comes
too late. Whatever hypothesis finds is printed as a few lines that can be read as a story.
"""

from __future__ import annotations

import sys
import time
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import hypothesis.strategies as st
from hypothesis import event
from hypothesis.stateful import initialize, precondition, rule
from redis.exceptions import NoScriptError

from tests.model import reference, standing
from tests.model.control_steps import ControlSteps
from tests.model.reference import LONG_MS, End, Message, PutAside, Take
from tests.model.steps import (
    CONVERSATIONS,
    DEADLINE_STEP_MS,
    HOLDS,
    HOUR_MS,
    IDS,
    LOW_RATE,
    MODEL_RULES,
    MOST_WAITING,
    ONE_CONVERSATION_ID,
    PERMIT_THAT_CAME_BACK_MS,
    PLENTY,
    PRIORITIES,
    WAIT_FOR_A_PERMIT_MS,
    WORKERS,
    Hold,
    byte_limits,
    few,
    holds_of,
    limits,
    one_of,
    paddings,
    seldom,
    times,
    workers,
)
from worker.broker import maintenance_moves
from worker.broker import take as take_call
from worker.broker.keys import digest
from worker.broker.records import Claim, ClaimAnswer, CompleteAnswer, Completion, Delay, TakeRequest, TakeState
from worker.broker.take import read_take, take_command

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from worker.broker.records import Delivery, FleetNews, Taken


class QueueMachine(ControlSteps):
    """One queue, from empty to empty again."""

    @initialize(deaths=st.lists(st.integers(0, reference.POISONOUS_CRASHES - 1), max_size=4))
    def some_jobs_have_a_past(self, deaths: list[int]) -> None:
        """Workers died on them before the story begins; one by one that would take most of its steps."""
        jobs = []
        for crashes in deaths:
            self._send(None, "x", 0, 0, is_dry_run=False)
            take = Take(self._new_token("ann"), "ann", PLENTY, TakeRequest(wanted=1, held=1))
            jobs += self._take(take).jobs
            self.model.take(take)
            self.bench.run("HSET", self.bench.record_key(jobs[-1]), "crashes", crashes)
            self.model.records[jobs[-1].ref].crashes = crashes
            if crashes == 0:
                self.bench.run("HSET", self.bench.record_key(jobs[-1]), "retry", 1)
                self.model.records[jobs[-1].ref].is_retry = True
        if jobs:
            self._wait(self.bench.moves.release(jobs))
            self.model.release([(job.ref, job.lease_token, 0) for job in jobs])
        self._check("begin")

    # -- producers, time, operators

    @precondition(lambda self: self.model.waiting < MOST_WAITING)
    @rule(
        job_id=st.sampled_from([None, *IDS]), conversation=st.sampled_from(CONVERSATIONS), names_none=seldom,
        is_dry_run=st.booleans(), priority=st.sampled_from(PRIORITIES), padding=paddings, duplicates=times,
    )  # fmt: skip
    def produce(
        self, job_id: str | None, conversation: str, priority: int, padding: int, duplicates: int, *,
        names_none: bool, is_dry_run: bool,
    ) -> None:  # fmt: skip
        if names_none:
            conversation = ""
        elif job_id == ONE_CONVERSATION_ID:
            conversation = "x"
        for _ in range(duplicates):
            self._send(job_id, conversation, priority, padding, is_dry_run=is_dry_run)
        self._check("produce")

    def _send(self, job_id: str | None, conversation: str, priority: int, padding: int, *, is_dry_run: bool) -> None:
        number = len(self.sent) + 1
        raw = f"{number} {job_id} {conversation} {is_dry_run} ".encode().ljust(padding + 1, b".")
        message = Message(number, job_id, conversation, raw, is_dry_run)
        self.sent.append(message)
        self.bench.push(raw, priority=priority)
        self.model.send(message, priority)

    @precondition(lambda self: bool(self.model.stock[0]))
    @rule()
    def a_message_wakes_a_worker_that_waits(self) -> None:
        keys = self.bench.keys
        self.bench.run("BLMOVE", keys.priority_lists[0], keys.arrived, "RIGHT", "LEFT", 1)
        self.model.arrive()
        self._check("arrive")

    @precondition(lambda self: bool(self.model.delayed))
    @rule(ref=one_of(lambda machine: sorted(machine.model.delayed)))
    def the_moment_of_a_delayed_job_comes(self, ref: str) -> None:
        self._set_back(self.bench.keys.delayed, ref)
        self.model.come(ref)
        self._check("come")

    @precondition(lambda self: bool(self.model.leases))
    @rule(worker=workers, is_crash=st.booleans(), is_found_by=st.sampled_from([None, *WORKERS]), most_bytes=byte_limits)
    def a_worker_stalls_or_crashes(
        self, worker: str, most_bytes: int, *, is_crash: bool, is_found_by: str | None
    ) -> None:
        for hold in [hold for hold in self.held if hold.worker == worker]:
            if self.model.is_held(hold.job.ref, hold.job.lease_token):
                self._lapse(hold.job.ref)
            if is_crash:
                self._forget(hold)
        self._check("crash")
        if is_found_by is not None:
            self.recover(is_found_by, PLENTY, most_bytes, "awake", is_lost=False)

    @precondition(lambda self: bool(self.model.leases))
    @rule(ref=one_of(lambda machine: sorted(machine.model.leases)))
    def a_lease_lapses(self, ref: str) -> None:
        self._lapse(ref)
        self._check("lapse")

    @precondition(lambda self: bool(self.model.records))
    @rule(ref=one_of(lambda machine: sorted(machine.model.records)), is_found_by=st.sampled_from([None, *WORKERS]))
    def a_job_gets_too_old(self, ref: str, is_found_by: str | None) -> None:
        moment = self._a_moment_that_is_over()
        self.bench.run("HSET", self.bench.keys.record_prefix + ref, "deadline", moment)
        self.bench.run("ZADD", self.bench.keys.deadlines, "XX", moment, ref)
        self.model.age(ref, moment)
        self._check("age")
        if is_found_by is not None and self.model.too_old:
            self.expire(is_found_by, PLENTY, PLENTY, is_lost=False)

    def _a_moment_that_is_over(self) -> int:
        """On the clock of ages."""
        self._deadlines_over += 1
        moment = self._began_ms - HOUR_MS + self._deadlines_over * DEADLINE_STEP_MS
        return moment - self.model.controls.behind * LONG_MS

    @precondition(lambda self: self.steps % 5 == 4)
    @rule(what=st.runner().flatmap(lambda machine: st.sampled_from(machine._incidents())))
    def something_happens(self, what: Callable[[], None]) -> None:
        what()
        self._check(what.__name__)

    def _incidents(self) -> list[Callable[[], None]]:
        """What may happen now; the moves have most of the steps."""
        found = [self.the_scripts_are_flushed]
        if {ONE_CONVERSATION_ID, f"{ONE_CONVERSATION_ID}:other"} & self.model.ids.keys():
            found.append(self.an_id_is_remembered_no_longer)
        if self.model.draining:
            found.append(self.the_time_to_drain_is_over)
        if self.model.leases or self.model.delayed:
            found.append(self.a_worker_of_the_version_before_leaves_a_deadline_behind)
        if self.model.fleet.was_probed:
            found.append(self.the_next_probe_may_go)
        if not self.model.fleet.has_permit:
            found.append(self.the_next_permit_comes)
        return found

    def a_worker_of_the_version_before_leaves_a_deadline_behind(self) -> None:
        """Its take knows nothing of deadlines; then it may put the job aside or end it."""
        ref, moment = min({*self.model.leases, *self.model.delayed}), self._a_moment_that_is_over()
        self.bench.run("ZADD", self.bench.keys.deadlines, moment, ref)
        self.model.leave_deadline(ref, moment)

    def the_next_probe_may_go(self) -> None:
        self.bench.run("HDEL", self.bench.keys.limit, "probe_at")
        self.model.fleet.was_probed = False

    def the_next_permit_comes(self) -> None:
        self.bench.run("DEL", self.bench.keys.rate)
        self.model.fleet.has_permit = True

    def the_scripts_are_flushed(self) -> None:
        self.bench.run("SCRIPT", "FLUSH", "SYNC")

    def an_id_is_remembered_no_longer(self) -> None:
        """Only one that is used for one conversation: a claim that runs out in a conflict decides it anew."""
        for rest in ("", ":unlocked", ":other", ":other:unlocked"):
            self.bench.run("DEL", self.bench.keys.id_prefix + digest(ONE_CONVERSATION_ID) + rest)
            self.model.ids.pop(ONE_CONVERSATION_ID + rest, None)
        for number, *_ in self.model.events:
            # From here on a duplicate is a new job: in the laws it has another id.
            if self.sent[number - 1].id == ONE_CONVERSATION_ID:
                self.sent[number - 1] = replace(self.sent[number - 1], id=f"{ONE_CONVERSATION_ID}, the one of {number}")

    def the_time_to_drain_is_over(self) -> None:
        self.bench.run("DEL", self.bench.keys.draining)
        self.model.draining = None

    # -- the moves

    @precondition(lambda self: bool(self.model.ready or self.model.waiting))
    @rule(
        worker=workers, wanted=st.integers(1, 4), wanted_bytes=byte_limits, held_elsewhere=st.integers(0, 1),
        which_new=st.sampled_from(["oldest", "newest"]), retries_first=few, retries_more=few,
        answered=few, failed=few, unused=st.sampled_from([0, 0, 1, 2]),
        is_probe=st.sampled_from([False, True, False]), is_paused=seldom, is_lost=seldom,
        knows_the_fleet=st.booleans(), repeats=times,
    )  # fmt: skip
    def take(
        self, worker: str, wanted: int, wanted_bytes: int, held_elsewhere: int, repeats: int, *,
        which_new: str, retries_first: int, retries_more: int, answered: int, failed: int, unused: int,
        is_probe: bool, is_paused: bool, is_lost: bool, knows_the_fleet: bool,
    ) -> None:  # fmt: skip
        """A worker may hold jobs of other queues. A proxy may send a call twice: the last answer arrives, or none."""
        request = TakeRequest(
            wanted=wanted, held=held_elsewhere + sum(hold.worker == worker for hold in self.held), which_new=which_new,
            is_probe=is_probe, retries_first=retries_first, max_retries=retries_first + retries_more,
            answered=answered, failed=failed, unused=unused, version=self.versions[-1] if knows_the_fleet else -1,
        )  # fmt: skip
        take = Take(self._new_token(worker), worker, wanted_bytes, request)
        self._pause(is_paused=is_paused)
        for _ in range(repeats):
            self._the_next_permit_is_far()
            began = self.bench.now_ms()
            taken = self._take(take)
            state, refs = self.model.take(take)
            event(f"take: {state.name}")
            assert taken.state is state
            assert [job.ref for job in taken.jobs] == refs
            assert began <= taken.server_ms <= self.bench.now_ms()
            self._check_the_wait(taken, request)
            self._check_the_news(taken.fleet, is_known=knows_the_fleet)
        self._pause(is_paused=False)
        self._take_in_hand(worker, taken.jobs, is_lost=is_lost)
        self._check("take")

    def _pause(self, *, is_paused: bool) -> None:
        if is_paused:
            self._wait(self.bench.pause(HOUR_MS / 1000))
        else:
            self.bench.run("DEL", MODEL_RULES.fleet.pause)
        self.model.fleet.is_paused = is_paused

    def _the_next_permit_is_far(self) -> None:
        """However long the steps before took."""
        if not self.model.fleet.has_permit:
            until = (self.bench.now_ms() + WAIT_FOR_A_PERMIT_MS) * 1000
            self.bench.run("SET", self.bench.keys.rate, until, "PX", HOUR_MS)

    def _check_the_wait(self, taken: Taken, request: TakeRequest) -> None:
        if taken.state is TakeState.PAUSED:
            assert 0 < taken.wait_ms <= HOUR_MS
        elif taken.state is TakeState.LIMITED and not self.model.fleet.has_permit:
            longest = PERMIT_THAT_CAME_BACK_MS if request.unused and self.model.fleet.rate else WAIT_FOR_A_PERMIT_MS
            assert 0 < taken.wait_ms <= (HOUR_MS if request.is_probe else longest)
        else:
            assert (0 < taken.wait_ms <= HOUR_MS) == (taken.state is TakeState.LIMITED)

    def _check_the_news(self, news: FleetNews, *, is_known: bool) -> None:
        fleet = self.model.fleet
        assert (news.version, news.epoch, news.rate) == (fleet.version, fleet.epoch, fleet.rate)
        assert (news.answered, news.failed) == (fleet.answered, fleet.failed)
        assert (news.paused_ms > 0) == (fleet.is_paused or self.model.controls.is_pausing)
        assert news.controls == self.model.controls.version
        assert 0 <= news.ages_behind_ms - self.model.controls.behind * LONG_MS <= self._ms_since_the_begin()
        assert news.state == (None if is_known or not fleet.state else fleet.state)

    @rule(
        version=st.runner().flatmap(lambda machine: st.sampled_from(machine.versions)), epoch=few,
        rate=st.sampled_from([0.0, 0.0, LOW_RATE]), is_the_newest=st.booleans(),
    )  # fmt: skip
    def throttle(self, version: int, epoch: int, rate: float, *, is_the_newest: bool) -> None:
        """Only from the newest version; a call that is sent twice changes nothing more."""
        version = self.versions[-1] if is_the_newest else version
        state = f"{len(self.versions)} {epoch} {rate}"
        for _ in range(2):
            done, news = self._wait(self.bench.throttle(rate, version=version, epoch=epoch, state=state))
            assert done == self.model.throttle(version=version, epoch=epoch, rate=rate, state=state.encode())
            if done:
                assert news.version > self.versions[-1]
                self.versions.append(news.version)
                self.model.fleet.version = news.version
            self._check_the_news(news, is_known=False)
        if not rate and self.model.fleet.rate == 0 and not self.model.fleet.has_permit:
            self.the_next_permit_comes()
        self._check("throttle")

    @precondition(lambda self: bool(self.model.too_old))
    @rule(worker=workers, at_most=limits, most_bytes=byte_limits, is_lost=seldom)
    def expire(self, worker: str, at_most: int, most_bytes: int, *, is_lost: bool) -> None:
        token = self._new_token(worker)
        with self._limits(maintenance_moves, EXPIRE_JOBS=at_most, TAKE_BYTES=most_bytes):
            expired = self._wait(self.bench.maintenance.expire(token=token, sent_at=time.monotonic()))
        refs = self.model.expire(token=token, at_most=at_most, most_bytes=most_bytes)
        assert [job.ref for job in expired] == refs
        event(f"expire: {bool(refs)}")
        self._take_in_hand(worker, expired, is_lost=is_lost)
        self._check("expire")

    @precondition(lambda self: bool(self.model.records))
    @rule(
        refs=st.runner().flatmap(
            lambda machine: st.lists(st.sampled_from(sorted(machine.model.records)), min_size=1, max_size=4)
        ),
        attempts=few,
    )
    def restore_attempts(self, refs: list[str], attempts: int) -> None:
        jobs = [(ref, attempts) for ref in [*refs, "nobody's"]]
        self._wait(self.bench.moves.restore_attempts(jobs))
        self.model.restore_attempts(jobs)
        self._check("restore_attempts")

    @precondition(lambda self: bool(self._unclaimed()))
    @rule(holds=holds_of(lambda machine: machine._unclaimed()), repeats=times)
    def claim(self, holds: list[Hold], repeats: int) -> None:
        messages = [hold.message for hold in holds]
        claims = [Claim(digest(each.id or ""), each.conversation, each.is_dry_run) for each in messages]
        for _ in range(repeats):
            answers = self._wait(self.bench.moves.claim(claims))
            assert answers == self.model.claim(messages)
        for hold, answer in zip(holds, answers, strict=True):
            event(f"claim: {answer.name}")
            hold.claimed = answer
        self._check("claim")

    @precondition(lambda self: bool(self._decided()))
    @rule(holds=holds_of(lambda machine: machine._decided()), is_locked=st.booleans(), repeats=times)
    def complete(self, holds: list[Hold], *, is_locked: bool, repeats: int) -> None:
        ends = [self._end(hold, is_locked=is_locked) for hold in holds]
        for _ in range(repeats):
            answers = self._wait(self.bench.moves.complete([self._completion(end, hold) for end, hold in ends]))
            assert answers == self.model.complete([end for end, _ in ends])
            for answer in answers:
                event(f"complete: {answer.name if isinstance(answer, CompleteAnswer) else answer}")
        for hold, answer in zip(holds, answers, strict=True):
            if answer is CompleteAnswer.TAKEN:
                hold.is_taken = True
            elif answer is CompleteAnswer.CONFLICT:
                hold.claimed = ClaimAnswer.CONFLICT
            else:
                self._forget(hold)
        self._check("complete")

    @precondition(lambda self: bool(self.held))
    @rule(
        holds=holds_of(lambda machine: machine.held), calls=few, is_retry=st.booleans(),
        progress=st.sampled_from([b"", b"a", b"b"]), has_deadline=st.booleans(), repeats=times,
    )  # fmt: skip
    def delay(
        self, holds: list[Hold], calls: int, progress: bytes, repeats: int, *, is_retry: bool, has_deadline: bool
    ) -> None:
        """A deadline comes half an hour before the moment to wait for, so the job waits for the deadline alone."""
        for hold in holds:
            hold.job.attempts += calls
        began = self.bench.now_ms()
        deadline = began + HOUR_MS // 2 - self.model.controls.behind * LONG_MS if has_deadline else 0
        moved: set[str] = set()
        for _ in range(repeats):
            delays = [Delay(hold.job, HOUR_MS / 1000, is_retry, deadline, progress) for hold in holds]
            answers = self._wait(self.bench.moves.delay(delays))
            assert answers == self.model.delay(
                [
                    PutAside(hold.job.ref, hold.job.lease_token, hold.job.attempts, is_retry, progress, has_deadline)
                    for hold in holds
                ]
            )
            moved |= {hold.job.ref for hold, is_ours in zip(holds, answers, strict=True) if is_ours}
        now = self._check("delay")
        for ref in moved:
            if has_deadline:
                due = began + HOUR_MS // 2
                assert due <= now.delayed[ref] <= due + self._ms_since_the_begin()
            else:
                assert began + HOUR_MS <= now.delayed[ref] <= now.now_ms + HOUR_MS
        for hold in holds:
            self._forget(hold)

    @precondition(lambda self: bool(self.held))
    @rule(holds=holds_of(lambda machine: machine.held), calls=st.integers(0, 2), repeats=times)
    def release(self, holds: list[Hold], calls: int, repeats: int) -> None:
        for hold in holds:
            hold.job.attempts += calls
        for _ in range(repeats):
            answers = self._wait(self.bench.moves.release([hold.job for hold in holds]))
            assert answers == self.model.release(
                [(hold.job.ref, hold.job.lease_token, hold.job.attempts) for hold in holds]
            )
        for hold in holds:
            self._forget(hold)
        self._check("release")

    @precondition(lambda self: bool(self.held))
    @rule(holds=holds_of(lambda machine: machine.held))
    def renew(self, holds: list[Hold]) -> None:
        began = self.bench.now_ms()
        answers = self._wait(self.bench.maintenance.renew([hold.job for hold in holds]))
        assert answers == self.model.renew([(hold.job.ref, hold.job.lease_token) for hold in holds])
        now = self._check("renew")
        for hold, is_ours in zip(holds, answers, strict=True):
            if is_ours:
                assert began + HOUR_MS <= now.leases[hold.job.ref] <= now.now_ms + HOUR_MS
            else:
                self._forget(hold)

    @precondition(lambda self: bool(self.model.delayed or self.model.due))
    @rule(at_most=limits, is_gated=seldom, repeats=times)
    def promote(self, at_most: int, repeats: int, *, is_gated: bool) -> None:
        """Gated: another worker of the fleet was here just now."""
        self.bench.run("HSET", self.bench.keys.maintenance, "promoted_at", self.bench.now_ms())
        for _ in range(repeats):
            with self._limits(maintenance_moves, UPKEEP_JOBS=at_most):
                promoted = self._wait(self.bench.maintenance.promote(between_ms=HOUR_MS if is_gated else 0))
            assert promoted.count == (None if is_gated else self.model.promote(at_most))
            if self.model.due:
                assert promoted.next_due_ms == 0
            else:
                assert (promoted.next_due_ms is not None) == bool(self.model.delayed)
            if self.model.too_old:
                assert promoted.next_deadline_ms == 0
            else:
                assert (promoted.next_deadline_ms is not None) == bool(self.model.deadlines)
            self._check_the_news(promoted.fleet, is_known=False)
        self._check("promote")

    @precondition(lambda self: bool(self.model.lapsed))
    @rule(
        worker=workers, at_most=limits, most_bytes=byte_limits, is_lost=seldom,
        fleet=st.sampled_from(["awake", "awake", "awake", "awake", "just looked", "away", "back"]),
    )  # fmt: skip
    def recover(self, worker: str, at_most: int, most_bytes: int, fleet: str, *, is_lost: bool) -> None:
        """Only where the fleet was awake a lapsed lease means a death: not after an outage, and not soon after it."""
        now, hours = self.bench.now_ms(), HOUR_MS
        looked, awake = {"away": (now - hours, now - hours), "back": (now, now)}.get(fleet, (now, now - hours))
        self.bench.run("HSET", self.bench.keys.maintenance, "recovered_at", looked, "awake_since", awake)
        token = self._new_token(worker)
        with self._limits(maintenance_moves, UPKEEP_JOBS=at_most, TAKE_BYTES=most_bytes):
            recovered = self._wait(
                self.bench.maintenance.recover(
                    token=token, sent_at=time.monotonic(), between_ms=hours if fleet == "just looked" else 0
                )
            )
        if fleet == "awake":
            ready, poisoned = self.model.recover(token=token, at_most=at_most, most_bytes=most_bytes)
            event(f"recover: {bool(ready)} ready, {bool(poisoned)} poisoned")
            assert recovered.count == ready
            assert [job.ref for job in recovered.poisoned] == poisoned
        else:
            assert (recovered.count, recovered.poisoned) == (None, [])
        self._take_in_hand(worker, recovered.poisoned, is_lost=is_lost)
        self._check("recover")

    @precondition(lambda self: bool(self._stale()))
    @rule(holds=holds_of(lambda machine: machine._stale()))
    def a_token_that_is_over_changes_nothing(self, holds: list[Hold]) -> None:
        before = self.bench.snapshot()
        jobs = [hold.job for hold in holds]
        ends = [self._end(hold, is_locked=False) for hold in holds]
        made: dict[str, Sequence[object]] = {
            "complete": self._wait(self.bench.moves.complete([self._completion(end, hold) for end, hold in ends])),
            "delay": self._wait(self.bench.delay(*jobs, is_retry=True, deadline_ms=1, progress=b"late")),
            "release": self._wait(self.bench.moves.release(jobs)),
            "hold": self._wait(self.bench.moves.hold([(job, min(HOLDS)) for job in jobs])),
            "renew": self._wait(self.bench.maintenance.renew(jobs)),
        }
        assert not any(answer for answers in made.values() for answer in answers), made
        assert self.bench.snapshot() == before

    # -- the end

    def teardown(self) -> None:
        """All heals, and one worker that is left finishes everything."""
        if sys.exc_info()[0] is not None:  # a step has failed, and that is what is to be seen
            return
        try:
            self._heal()
            rounds = 0
            while self.model.records or self.model.waiting:
                self._finish_some()
                rounds += 1
                assert rounds < 20 + len(self.sent), "the last worker does not come to an end"
            self._finish_some()  # an empty queue is left in peace
            if self.over:
                self.a_token_that_is_over_changes_nothing(self._stale())
            self._check_the_end()
        finally:
            super().teardown()

    def _heal(self) -> None:
        self.an_operator_resumes()
        for each in HOLDS:
            self.hold_jobs_of_a_kind(each, is_timed=False, is_released=True)
        self.the_time_to_drain_is_over()
        self.the_next_probe_may_go()
        self.throttle(0, 0, 0.0, is_the_newest=True)
        for hold in list(self.held):
            self._forget(hold)
        for ref in sorted(self.model.leases):
            self._lapse(ref)
        for ref in sorted(self.model.delayed):
            self._set_back(self.bench.keys.delayed, ref)
            self.model.come(ref)
        self._check("heal")
        if self.model.due:
            self.promote(PLENTY, 1, is_gated=True)
        for fleet in ("just looked", "away", "back") if self.model.lapsed else ():
            self.recover("ann", PLENTY, PLENTY, fleet, is_lost=False)

    def _finish_some(self) -> None:
        if self.model.on_hold:
            self.release_held(PLENTY, 1)
        if self.model.due:
            self.promote(PLENTY, 1, is_gated=False)
        if self.model.lapsed:
            self.recover("ann", PLENTY, 1, "awake", is_lost=False)
        if self.model.too_old:
            self.expire("ann", PLENTY, PLENTY, is_lost=False)
        self.take(
            "ann", 4, PLENTY, 0, 1, which_new="oldest", retries_first=1, retries_more=1, answered=1, failed=0, unused=0,
            is_probe=False, is_paused=False, is_lost=False, knows_the_fleet=True,
        )  # fmt: skip
        if unclaimed := self._unclaimed():
            self.claim(unclaimed, 1)
        if decided := self._decided():
            self.complete(decided, is_locked=True, repeats=1)

    def _check_the_end(self) -> None:
        now = self._read()
        ended = {number for number, *_ in now.events}
        told = [self.sent[number - 1] for number in ended]
        silent = [message for message in self.sent if message.number not in ended]
        for message in silent:
            assert message.conversation
            assert any(
                (message.id, message.conversation, message.is_dry_run)
                == (other.id and other.id.partition(",")[0], other.conversation, other.is_dry_run)
                for other in told
            ), f"{message} has no event, and is no duplicate of one that has"
        assert now.counters.get("deduplicated", 0) == len(silent)
        assert list(self.bench.troubles()) == []
        assert [standing.read_event(heard) for heard in self.server.heard()] == now.events

    # -- jobs in flight

    def _unclaimed(self) -> list[Hold]:
        """What must be claimed before it is called or ended."""
        return [hold for hold in self.held if hold.claimed is None and hold.message.id and hold.message.conversation]

    def _decided(self) -> list[Hold]:
        """What its worker can end."""
        return [
            hold
            for hold in self.held
            if hold.claimed is not None or not (hold.message.id and hold.message.conversation)
        ]

    def _stale(self) -> list[Hold]:
        """What another worker has, or nobody any more."""
        return [hold for hold in (*self.held, *self.over) if not self.model.is_held(hold.job.ref, hold.job.lease_token)]

    def _end(self, hold: Hold, *, is_locked: bool) -> tuple[End, Hold]:
        job, message, remembered = hold.job, hold.message, hold.message.id
        is_dry_run, event_id, has_own_id = message.is_dry_run, message.id or f"of {message.number}", hold.is_taken
        outcome: str | None = "rejected"
        if message.conversation:
            outcome = "refused" if not is_locked else "would_lock" if is_dry_run else "locked"
        if hold.claimed is ClaimAnswer.CANCELLED:
            outcome = standing.CANCELLED_AFTER_A_CALL if job.attempts else standing.CANCELLED
        if job.crashes >= reference.POISONOUS_CRASHES:
            outcome = "poisoned"
        if hold.claimed is ClaimAnswer.CONFLICT:
            # The id goes on standing for what it stood for; this end is remembered beside it.
            outcome, remembered = outcome if outcome == "poisoned" else "conflict", message.beside
            event_id, is_dry_run, has_own_id = f"conflict of {message.beside}", False, True
        elif hold.claimed is ClaimAnswer.DUPLICATE:
            outcome = None
        elif hold.is_taken:
            event_id = f"second of {message.beside}"
            if not message.conversation:
                event_id, remembered = f"of {message.number}", None
        is_failure = outcome not in {None, "locked", "would_lock", standing.CANCELLED}
        return End(job.ref, job.lease_token, outcome, is_failure, remembered, event_id, is_dry_run, has_own_id), hold

    @staticmethod
    def _completion(end: End, hold: Hold) -> Completion:
        return Completion(
            ref=end.ref,
            lease_token=end.token,
            event=b"" if end.outcome is None else standing.write_event(hold.message.number, end.outcome, end.event_id),
            outcome=end.outcome or "",
            is_dead_letter=end.is_failure,
            id_digest="" if end.id is None else digest(end.id),
            fingerprint="" if end.id is None else hold.message.conversation,
            is_dry_run=end.is_dry_run,
            has_own_id=end.has_own_id,
        )

    def _take_in_hand(self, worker: str, jobs: Sequence[Delivery], *, is_lost: bool) -> None:
        for job in jobs:
            record = self.model.records[job.ref]
            assert (job.raw, job.size) == (record.message.kept, len(record.message.raw))
            assert (job.attempts, job.crashes) == (record.calls, record.crashes)
            assert (job.is_retry, job.progress) == (record.is_retry, record.progress)
            assert round(job.age_offset_ms / LONG_MS) == record.offset
            hold = Hold(worker, job, record.message)
            (self.over if is_lost else self.held).append(hold)

    def _lapse(self, ref: str) -> None:
        self._set_back(self.bench.keys.leases, ref)
        self.model.lapse(ref)

    def _set_back(self, index: str, ref: str) -> None:
        self._past += 1
        assert self.bench.run("ZADD", index, "XX", "CH", self._past, ref) == 1

    def _take(self, take: Take) -> Taken:
        def call(*, whole_text: bool) -> Any:
            with self._limits(
                take_call,
                TAKE_BYTES=take.wanted_bytes,
                MAX_MESSAGE_BYTES=reference.LARGEST_BYTES,
                KEPT_BYTES=reference.KEPT_BYTES,
                PROBE_GAP_MS=HOUR_MS,
            ):
                command = take_command(
                    self.bench.keys, MODEL_RULES,
                    token=take.token, worker=take.worker, request=take.request, whole_text=whole_text,
                )  # fmt: skip
            return self.bench.run(*command)

        sent_at = time.monotonic()
        try:
            answer = call(whole_text=False)
        except NoScriptError:
            answer = call(whole_text=True)
        wanted = take.request.wanted
        return read_take(answer, self.bench.keys, MODEL_RULES, token=take.token, sent_at=sent_at, wanted=wanted)

    def _new_token(self, worker: str) -> str:
        self._tokens[worker] += 1
        return f"{worker}{self._tokens[worker]}"

    # -- looking
