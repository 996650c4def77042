"""The asyncio side of a worker: one loop in one thread runs jobs, carries their decisions out and keeps their leases.

Celery's loop (another thread) says from which queues to take. Nothing here waits for it, as it stands still in a
reconnect or a shutdown; but while somebody looks at Celery's books, jobs are shown to it before they begin. A job is
settled when Redis has answered, and not before.
"""

from __future__ import annotations

import asyncio
import logging
import math
import threading
import time
from contextlib import suppress
from dataclasses import replace
from functools import partial
from itertools import count
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING, Any, Protocol

from redis.exceptions import RedisError

from tasks.decision import Decision, Finished, Later
from tasks.message import Accepted
from worker.broker.keys import Keys
from worker.broker.moves import (
    LARGEST_MESSAGE_BYTES,
    WORKER_MS,
    ClaimAnswer,
    CompleteAnswer,
    Completion,
    Duplicate,
    Moves,
)
from worker.observe import jobs, uncaught
from worker.runtime import job_ids
from worker.runtime.admission import LeaseLostError, RevokedError
from worker.runtime.batcher import retry_forever
from worker.runtime.fetcher import Fetcher
from worker.runtime.maintenance import Maintenance, QueueWatch, look_seconds
from worker.runtime.settlement import Completed, Delayed, Ignored, Settlement
from worker.runtime.settler import Assignment, Settler

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Coroutine, Iterable, Mapping, Sequence
    from datetime import datetime

    from redis.exceptions import ResponseError

    from tasks.event import Event
    from tasks.lock_conversation import LockConversation
    from tasks.message import ParsedJob
    from worker.broker.client import RedisClient
    from worker.broker.moves import BrokerOptions, Claim, Delivery, Recovered
    from worker.flow_control.flow_control import FlowControl
    from worker.runtime.admission import Admission
    from worker.runtime.clock import ServerClock
    from worker.runtime.in_flight import InFlight
    from worker.runtime.registry import Registry

logger = logging.getLogger(__name__)

#: Queues that one worker takes from or looks after at most: each has a connection of its own that waits for messages.
MAX_QUEUES = 50

#: The share of the shutdown time kept for handing jobs back, and its bound in seconds.
_HAND_BACK_SHARE = 0.2
_HAND_BACK_SECONDS = 3.0
#: How often it is looked whether the hands are empty at last.
_LOOK_SECONDS = 0.01
#: How long Celery's thread waits at most for the word that a queue is left alone.
_CANCEL_SECONDS = 1.0
#: How long the loop may take at most to close what is open, once the jobs are out of hand.
_CLOSE_SECONDS = 5.0
_AFTER_AN_ERROR_SECONDS = 0.5
#: How often it is looked whether a breaker has opened or closed.
_VOTE_SECONDS = 1.0
#: How often a worker tells the fleet that it is there, and how long it tries to say that it leaves.
_REGISTER_SECONDS = WORKER_MS / 1000 / 3
_LEAVE_SECONDS = 1.0


class LookAhead(Protocol):
    """Reads a message before it is taken."""

    def __call__(self, raw: bytes, *, now: datetime) -> ParsedJob:
        """Read it."""


class Service(Protocol):
    """What runs on the loop beside the jobs."""

    async def start(self) -> None:
        """Begin."""

    async def stop(self) -> None:
        """End."""


class Monitoring(Protocol):
    """Celery's books, as far as they are kept from here."""

    def is_watched(self, job: str) -> bool:
        """Whether a job has to be shown before it begins."""

    def is_revoked(self, job: str) -> bool:
        """Whether a job was revoked."""

    def announce(self, items: Sequence[Assignment]) -> None:
        """Show jobs that are about to begin; they come back through :meth:`Executor.go_on`."""

    def settled(self, item: Assignment, how: Settlement) -> None:
        """Note how a job left this worker."""

    def flush_soon(self) -> None:
        """Let Celery hear of what was noted."""

    def reconnect(self, error: ResponseError) -> None:
        """Let Celery connect anew, if it was connected before now."""


class Executor:
    """Runs the jobs of a worker.

    Args:
        admission: decides on jobs before they are run.
        look_ahead: reads a message before it is taken.
        handler: what is done with a job.
        link: the way to Redis.
        broker_options: the settings of the moves.
        hands: what this worker holds.
        clock: the server's clock.
        flow: what holds this process back, and the fleet.
        name: this worker's name in Redis; new for every process.
        registry: what the workers of the fleet tell of themselves.
        queues: the queues this worker takes jobs from.
        close: closes what the handler has open.

    ``services`` may be added to until it is started; they run on its loop. ``monitoring`` are Celery's.
    """

    monitoring: Monitoring

    def __init__(
        self,
        *,
        admission: Admission,
        look_ahead: LookAhead,
        handler: LockConversation,
        link: RedisClient,
        broker_options: BrokerOptions,
        in_flight: InFlight,
        clock: ServerClock,
        flow: FlowControl,
        name: str,
        registry: Registry,
        queues: Callable[[], Iterable[str]],
        close: Callable[[], Awaitable[None]],
    ) -> None:
        self.services: list[Service] = []
        self.in_flight = in_flight
        self.clock = clock
        self.broker_options = broker_options
        self._admission = admission
        self._look_ahead = look_ahead
        self._handler = handler
        self._link = link
        link.on_useless = lambda error: self.monitoring.reconnect(error)  # noqa: PLW0108 - the books come later
        self._queues = queues
        self._close_api = close
        self._name = name
        self.registry = registry
        self._flow = flow
        self._fleet = Moves(link, broker_options.fleet, broker_options)
        self._throttling: asyncio.Task[None] | None = None
        self._tokens = count(1)
        self._settlers: dict[str, Settler] = {}
        self._assignments: dict[tuple[str, str], Assignment] = {}
        self._is_waking_celery = False
        self.fetcher = Fetcher(
            name=self._name,
            moves=lambda queue: self._settler(queue).moves,
            in_flight=in_flight, clock=clock, gates=flow,
            next_lease_token=self.next_lease_token, receive=self.receive, hand_back=self._release_all,
            not_heard=self._note_unheard, claim_of=self._claim_before_the_take,
        )  # fmt: skip
        self._taking: asyncio.Task[None] | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None
        self._maintenances: dict[str, Maintenance] = {}
        self._maintenance_tasks: dict[str, tuple[asyncio.Task[None], ...]] = {}
        self._fleet_tasks: tuple[asyncio.Task[None], ...] = ()
        self._queues_changed = asyncio.Event()
        self._tasks: set[asyncio.Task[None]] = set()
        self._end: asyncio.Task[None] | None = None
        self._hand_back_at = self._end_at = math.inf
        self._celery_is_done = asyncio.Event()

    # -- called by Celery's loop --

    @property
    def name(self) -> str:
        """This worker's name in Redis; new for every process."""
        return self._name

    def next_lease_token(self) -> str:
        """A lease token that no other take has, of this or of any other worker."""
        return f"{self._name}.{next(self._tokens)}"

    def start(self) -> None:
        """Start the loop in its thread; returns when it turns."""
        ready: SimpleQueue[None] = SimpleQueue()
        self._thread = threading.Thread(target=self._run_loop, args=(ready,), name="asyncio", daemon=True)
        self._thread.start()
        ready.get()

    def consume(self, queue: str) -> None:
        """Take jobs from a queue, keep their leases, and find those that are due or lost."""
        self._call(self._consume, queue)

    def cancel_queue(self, queue: str) -> None:
        """Take no more jobs from a queue; returns when that is so. Its jobs that are under way are looked after."""
        # A signal handler may interrupt the wait and stop this executor. An Event would deadlock then: who waits for it
        # holds a lock that its setter needs. A SimpleQueue may be interrupted.
        done: SimpleQueue[None] = SimpleQueue()
        self._call(self._cancel_queue, queue, done)
        if not self.in_flight.is_closed and self._thread is not None and self._thread.is_alive():
            with suppress(Empty):
                done.get(timeout=_CANCEL_SECONDS)

    def wake_celery(self) -> None:
        """End the sleep of Celery's loop. For signal handlers: on its own thread they only interrupt that sleep."""
        self._call(self.monitoring.flush_soon)

    def slots_changed(self) -> None:
        """Told that the hands may hold more jobs than before."""
        self._call(self.fetcher.slots_freed)

    def resume(self, items: Sequence[Assignment]) -> None:
        """Begin with jobs that Celery was shown."""
        self._call(self._resume, items)

    def running(self) -> list[Assignment]:
        """The jobs that run at this moment."""
        return [item for item in list(self._assignments.values()) if item.task is not None]

    def holds(self, item: Assignment) -> bool:
        """Whether a job has not been settled yet."""
        return _key(item.delivery) in self._assignments

    def queues_in_care(self) -> list[str]:
        """The queues that jobs are taken from, or will be at once, and those of which jobs are still under way."""
        return list({*self._queues(), *self._settlers})

    def cancel(self, delivery: Delivery) -> None:
        """Stop running a job and hand it back."""
        self._call(self._cancel, delivery)

    def close(self, seconds: float) -> None:
        """Take no more; let the jobs in flight finish, and hand back what is left before ``seconds`` are over."""
        self.in_flight.is_closed = True
        self._call(self._begin_shutdown, seconds)

    def stop(self, seconds: float) -> None:
        """As :meth:`close`, and wait until it has happened; then end the loop.

        A second call may come from a signal handler while the first one waits, or when all is over. A handler may also
        have interrupted a thread that holds a lock which the loop needs, such as that of a log handler. So the wait is
        bounded: the interrupted thread goes on, frees the lock, and waits here again before the worker ends.
        """
        if self._thread is not None and self._thread.is_alive():
            self.close(seconds)
            self._call(self._celery_is_done.set)
            self._thread.join(seconds + _CLOSE_SECONDS)

    def _call(self, function: Callable[..., None], *arguments: Any) -> None:
        if self._loop is not None:
            with suppress(RuntimeError):  # the loop is closed: all is over
                self._loop.call_soon_threadsafe(function, *arguments)

    # -- the asyncio side --

    def flow_changes(self) -> None:
        """Told that this process has something to change in the fleet's flow control."""
        if self._throttling is None or self._throttling.done():
            self._throttling = self._spawn(self._throttle())

    async def _throttle(self) -> None:
        moves = self._fleet
        while (change := self._flow.change()) is not None:
            _, fleet = await retry_forever("throttle", partial(moves.throttle, change))
            self._flow.saw(fleet)

    def forgive(self, jobs: Mapping[tuple[str, str], int]) -> None:
        """Take back attempts that an outage cost jobs which wait in Redis."""
        for queue, settler in self._settlers.items():
            waiting = [(ref, attempts) for (where, ref), attempts in jobs.items() if where == queue]
            if waiting:
                self._spawn(self._forgive(settler.moves, waiting))

    async def _forgive(self, moves: Moves, jobs: list[tuple[str, int]]) -> None:
        try:
            await moves.forgive(jobs)
        except (RedisError, OSError) as error:  # they lose an attempt; a second try could give them two
            logger.warning("attempts_not_given_back", extra={"error": str(error), "jobs": len(jobs)})

    async def _vote(self) -> None:
        """Tell the fleet, from time to time, which breakers are open here."""
        while True:
            await asyncio.sleep(_VOTE_SECONDS)
            told = self._flow.vote()
            if told is not None:
                await retry_forever("vote", partial(self._fleet.vote, self._name, told))

    async def _stay_registered(self) -> None:
        """Tell the fleet, from time to time and where the queues change, that this worker is there."""
        while True:
            self._queues_changed.clear()
            await self._register()
            with suppress(TimeoutError):
                async with asyncio.timeout(_REGISTER_SECONDS):
                    await self._queues_changed.wait()

    async def _register(self) -> None:
        registry = self.registry
        try:
            others = await self._fleet.register(self._name, registry.digest, registry.told(self.fetcher.queues))
            self._learn_of(others)
        except (RedisError, OSError) as error:  # the next time will do; what keeps the jobs from moving is told there
            logger.debug("not_registered", extra={"error": str(error)})
        except Exception:  # an error of ours must not end the taking of jobs, which begins with this
            logger.exception("not_registered")

    def _learn_of(self, others: Sequence[tuple[str, bytes]]) -> None:
        """Note how the other workers of the fleet are set; the longest times among them count here too."""
        self.registry.heard(others)
        longest_lease_ms = round(self.registry.longest("LEASE_SECONDS") * 1000)
        dedup_ttl_ms = round(self.registry.longest("DEDUPLICATE_SECONDS") * 1000)
        if (longest_lease_ms, dedup_ttl_ms) != (self.broker_options.longest_lease_ms, self.broker_options.dedup_ttl_ms):
            self.broker_options = replace(
                self.broker_options, longest_lease_ms=longest_lease_ms, dedup_ttl_ms=dedup_ttl_ms
            )
            for moves in (self._fleet, *(settler.moves for settler in self._settlers.values())):
                moves.broker_options = self.broker_options

    async def _leave_the_fleet(self) -> None:
        with suppress(RedisError, OSError, TimeoutError):
            async with asyncio.timeout(_LEAVE_SECONDS):
                await self._fleet.register(self._name, "", "")

    def _run_loop(self, ready: SimpleQueue[None]) -> None:
        with asyncio.Runner() as runner:
            self._loop = runner.get_loop()
            asyncio.set_event_loop(self._loop)
            self._loop.set_exception_handler(uncaught.in_a_loop)
            self._loop.call_soon(self._start_maintenance)
            for service in self.services:
                runner.run(service.start())
            self._loop.call_soon(ready.put, None)
            self._loop.run_forever()

    def _consume(self, queue: str) -> None:
        if queue not in self._settlers and len(self._settlers) >= MAX_QUEUES:  # many were asked for at once
            logger.error("queue_refused", extra={"queue": queue, "queues": len(self._settlers)})
            return
        self._settler(queue)
        self.fetcher.consume(queue)
        self._queues_changed.set()
        if self._taking is None:
            self._taking = self._spawn(self._take())

    async def _take(self) -> None:
        await self._register()  # so that the first job is treated as the whole fleet would
        while not self.in_flight.is_closed:
            try:
                await self.fetcher.run()
            except Exception:  # an error of ours must not end the taking of jobs
                logger.exception("take_error")
                await asyncio.sleep(_AFTER_AN_ERROR_SECONDS)

    def _cancel_queue(self, queue: str, done: SimpleQueue[None]) -> None:
        self.fetcher.cancel(queue)
        self._queues_changed.set()
        self._spawn(self._let_go(done))

    async def _let_go(self, done: SimpleQueue[None]) -> None:
        """Say when no message can be taken any more by what was under way, or when that cannot be known in time."""
        try:
            # A server that is away moves no message; others tell that it is.
            with suppress(RedisError, OSError, TimeoutError):
                async with asyncio.timeout(_CANCEL_SECONDS):
                    await self.fetcher.has_let_go()
                    # Until the server has read that a connection is closed, a message may still wake the wait on it. It
                    # reads that before it answers what is sent later.
                    await self._link.execute_command("PING")
        finally:
            done.put(None)

    def _start_maintenance(self) -> None:
        for queue in self._queues():
            self._settler(queue)
        watch = QueueWatch(
            self._link, self._maintenances, self.in_flight,
            look_seconds=look_seconds(self.broker_options.lease_ms),
            is_consumed=lambda queue: queue in self.fetcher.queues,
            on_ready=self.fetcher.check_queues, on_left=self._leave,
        )  # fmt: skip
        work = (self._vote(), watch.run(), self._stay_registered())
        self._fleet_tasks = tuple(asyncio.create_task(each) for each in work)

    def _settler(self, queue: str) -> Settler:
        """The moves of a queue; the first use of a queue starts its upkeep."""
        if queue not in self._settlers:
            moves = Moves(self._link, Keys(queue), self.broker_options)
            self._settlers[queue] = Settler(self, moves)
            maintenance = self._maintenances[queue] = Maintenance(
                moves, self.in_flight, self.clock,
                next_lease_token=self.next_lease_token, fleet=self._flow, on_ready=partial(self.fetcher.check_queues,
                queue),
                on_recovered=partial(self._tell_recovered, queue),
                on_poisoned=self._end_poisoned, on_expired=self._end_expired, not_heard=self._note_unheard,
            )  # fmt: skip
            work = (maintenance.renew_leases(), maintenance.run())
            self._maintenance_tasks[queue] = tuple(asyncio.create_task(each) for each in work)
        return self._settlers[queue]

    def _leave(self, queue: str) -> None:
        """End the upkeep of a queue that no jobs are taken from any more and that has none under way."""
        for task in self._maintenance_tasks.pop(queue):
            task.cancel()
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        del self._maintenances[queue], self._settlers[queue]

    def _spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.create_task(work)
        self._tasks.add(task)  # the loop itself keeps no hold of a task
        task.add_done_callback(self._tasks.discard)
        return task

    def _end_expired(self, deliveries: Sequence[Delivery]) -> None:
        """End jobs that are too old. They passed no gate, so one that is not too old by our settings goes back."""
        self.receive(deliveries, may_call=False)

    def receive(self, deliveries: Sequence[Delivery], *, may_call: bool = True) -> None:
        """Read the jobs of one take, and run them or settle them at once."""
        now = self.clock.now()
        ready: list[Assignment] = []
        shown: list[Assignment] = []
        for delivery in deliveries:
            item = self._assignments[_key(delivery)] = Assignment(delivery)
            try:
                item.decision = self._admission.admit(delivery, now, may_call=may_call)
                item.is_at_celery = item.decision is None and self.monitoring.is_watched(delivery.parsed.id)
            except Exception as error:  # noqa: BLE001 - one job's trouble must not keep the others of its take from running
                item.decision = self._admission.failed(delivery, error, 0)
            if isinstance(item.decision, Later):
                item.deadline_ms = 0 if may_call else self._admission.deadline_ms(delivery)
                self._carry_out(item, item.decision)
            else:
                (shown if item.is_at_celery else ready).append(item)
        if shown:
            self.monitoring.announce(shown)
        if ready:
            self._spawn(self._begin(ready[0].delivery.queue, ready))

    def _resume(self, items: Sequence[Assignment]) -> None:
        # Those that were cancelled meanwhile have gone back.
        ready = [item for item in items if item.is_at_celery]
        for item in ready:
            item.is_at_celery = False
            if item.is_revoked:
                item.decision = self._admission.revoked(item.delivery)
        if ready:
            self._spawn(self._begin(ready[0].delivery.queue, ready))

    async def _begin(self, queue: str, assignments: list[Assignment]) -> None:
        """Start, or end as decided, jobs whose ids are free, and settle the copies."""
        claims = [(item, job_ids.to_claim(item.delivery.parsed)) for item in assignments]
        unasked = [claim for item, claim in claims if claim is not None and _known_answer(item.delivery, claim) is None]
        ask = partial(self._settler(queue).moves.claim, unasked)
        answers = iter(await retry_forever("claim", ask, queue=queue) if unasked else ())
        for item, claim in claims:
            answer: ClaimAnswer | None = ClaimAnswer.GO
            if claim is not None and (answer := _known_answer(item.delivery, claim)) is None:
                answer = next(answers)
            if answer is ClaimAnswer.DUPLICATE:
                self._drop_duplicate(item)
            elif answer is ClaimAnswer.CONFLICT:
                if not isinstance(item.decision, Finished):
                    item.decision = self._admission.conflicting(item.delivery)
                self._end_under_its_own_id(item, item.decision.event, is_conflict=True)
            elif item.decision is not None:
                self._carry_out(item, item.decision)
            elif item.is_cancelled:
                self._release(item)
            else:
                item.begun_at = time.monotonic()
                # The loop itself keeps no hold of a task; the assignment does.
                item.task = asyncio.create_task(self._run(item))

    def _claim_before_the_take(self, raw: bytes) -> Claim | None:
        """The claim of a message that is about to be taken; None for one that is not claimed as soon as it is taken."""
        if len(raw) > LARGEST_MESSAGE_BYTES:
            return None
        intake = self._look_ahead(raw, now=self.clock.now())
        is_for_later = isinstance(intake, Accepted) and intake.not_before is not None
        return None if is_for_later else job_ids.to_claim(intake)

    async def _run(self, item: Assignment) -> None:
        """Run one job; whatever happens, it ends in one decision, or in another worker's hands."""
        delivery = item.delivery
        run = self._admission.run_of(delivery, self.monitoring.is_revoked)
        try:
            decision = await self._handler(delivery.parsed, run)
        except asyncio.CancelledError:
            delivery.attempts = run.attempts + run.is_calling
            raise
        except LeaseLostError:
            self._give_permit_back(delivery)
            jobs.lease_lost(delivery)
            self.settled(item, Ignored())
            return
        except RevokedError:
            delivery.attempts, delivery.progress = run.attempts, run.progress.to_bytes()
            decision = self._admission.revoked(delivery)
        except Exception as error:  # noqa: BLE001 - the last line of defence: a job never vanishes in an error of ours
            decision = self._admission.failed(delivery, error, run.attempts)
        else:
            delivery.attempts = run.attempts
            if isinstance(decision, Later):
                delivery.progress, item.deadline_ms = run.progress.to_bytes(), self._admission.deadline_ms(delivery)
        finally:
            run.is_over = True
        self._carry_out(item, decision)

    def _give_permit_back(self, delivery: Delivery) -> None:
        """What a job was taken by, a permit or a probe, is for calls: of a job that makes none it goes back at once."""
        if delivery.has_permit:
            delivery.has_permit = False
            self._flow.unused(delivery)
            self.fetcher.gates_changed()

    def _carry_out(self, item: Assignment, decision: Decision, *, is_conflict: bool = False) -> None:
        self._give_permit_back(item.delivery)
        settler = self._settler(item.delivery.queue)
        match decision:
            case Finished(event):
                item.decision = decision
                has_own_id = event.id != item.delivery.parsed.id
                end = job_ids.to_remember(item.delivery.parsed, is_conflict=is_conflict, has_own_id=has_own_id)
                completion = Completion(
                    ref=item.delivery.ref,
                    lease_token=item.delivery.lease_token,
                    event=event.body,
                    outcome=event.outcome,
                    is_dead_letter=event.failed,
                    id_digest=end.id_digest,
                    fingerprint=end.fingerprint,
                    is_dry_run=end.is_dry_run,
                    has_own_id=has_own_id,
                )
                settler.complete.put((item, completion))
            case Later():
                settler.delay.put((item, decision))

    def _end_under_its_own_id(self, item: Assignment, event: Event, *, is_conflict: bool) -> None:
        own_id = job_ids.own_event_id(item.delivery.parsed, is_conflict=is_conflict)
        self._carry_out(item, Finished(event.under(own_id)), is_conflict=is_conflict)

    def _drop_duplicate(self, item: Assignment) -> None:
        self._give_permit_back(item.delivery)
        end = job_ids.to_remember(item.delivery.parsed, is_conflict=False, has_own_id=False)
        completion = Completion(item.delivery.ref, item.delivery.lease_token, b"", "", False, *end)  # noqa: FBT003 - no dead letter
        self._settler(item.delivery.queue).complete.put((item, completion))

    def _note_unheard(self, queue: str, token: str) -> None:
        """Jobs of a take whose answer was lost come back by their leases, and no worker died on them."""
        note = partial(self._settler(queue).moves.note_unheard, [token])
        self._spawn(retry_forever("unheard", note, queue=queue))

    def _release_all(self, deliveries: Sequence[Delivery]) -> None:
        for delivery in deliveries:
            self._release(Assignment(delivery))

    def _release(self, item: Assignment) -> None:
        self._give_permit_back(item.delivery)
        self._settler(item.delivery.queue).release.put(item)

    def _cancel(self, delivery: Delivery) -> None:
        item = self._assignments.get(_key(delivery))
        if item is not None:
            self._stop_run(item)

    def _stop_run(self, item: Assignment) -> None:
        if item.is_at_celery:
            item.is_at_celery = False  # Celery's loop may stand still, so it is not waited for
            self._release(item)
        elif item.task is not None and not item.is_cancelled and item.task.cancel():
            item.task.add_done_callback(partial(self._run_is_over, item))
        item.is_cancelled = True

    def _run_is_over(self, item: Assignment, task: asyncio.Task[None]) -> None:
        """Hand a job back whose run was cancelled: from here, as a run that had not begun never comes to do it."""
        if task.cancelled():
            self._release(item)

    def _tell_recovered(self, queue: str, recovered: Recovered) -> None:
        jobs.recovered(queue, recovered, [self._admission.id_of(raw) for raw in recovered.messages])

    def _end_poisoned(self, delivery: Delivery) -> None:
        item = self._assignments[_key(delivery)] = Assignment(delivery, self._admission.poisoned(delivery))
        self._spawn(self._begin(delivery.queue, [item]))  # claimed like any other, so that its id tells copies apart

    def completed(self, item: Assignment, answer: CompleteAnswer | Duplicate) -> None:
        """Told that a completion was answered."""
        if answer is CompleteAnswer.PUBLISHED and isinstance(item.decision, Finished):
            event = item.decision.event
            jobs.finished(item.delivery, event, (self.clock.now_ms() - item.delivery.received_ms) / 1000)
            self.settled(
                item, Completed(event.outcome, event.problem.detail if event.failed and event.problem else None)
            )
        elif isinstance(answer, Duplicate):
            jobs.duplicate_dropped(item.delivery, answer.first_outcome)
            self.settled(item, Ignored())
        elif answer is not CompleteAnswer.GONE and isinstance(item.decision, Finished):
            self._end_under_its_own_id(item, item.decision.event, is_conflict=answer is CompleteAnswer.CONFLICT)
        else:
            jobs.settled_elsewhere(item.delivery)
            self.settled(item, Ignored())

    def delayed(self, item: Assignment, later: Later, *, is_ours: bool) -> None:
        """Told that a delay was answered."""
        if is_ours:
            jobs.delayed(item.delivery, later)
        else:
            jobs.settled_elsewhere(item.delivery)
        self.settled(item, Delayed(later.delay, later.reason) if is_ours else Ignored())

    def released(self, item: Assignment) -> None:
        """Told that a release was answered; if the job was not ours any more, another worker has it already."""
        self.settled(item, Ignored())

    def settled(self, item: Assignment, how: Settlement) -> None:
        """A job has left this worker."""
        self._assignments.pop(_key(item.delivery), None)
        self.in_flight.drop(item.delivery)
        self.fetcher.slots_freed()
        self.monitoring.settled(item, how)
        if item.request is not None and not self._is_waking_celery:
            # When the others of its batch are settled too: one wake-up for all of them.
            self._is_waking_celery = True
            asyncio.get_running_loop().call_soon(self._wake_celery)

    def _wake_celery(self) -> None:
        self._is_waking_celery = False
        self.monitoring.flush_soon()

    def _begin_shutdown(self, seconds: float) -> None:
        """Begin to end, or hurry up: of several calls the one that allows least time counts."""
        end_at = time.monotonic() + seconds
        self._end_at = min(self._end_at, end_at)
        self._hand_back_at = min(self._hand_back_at, end_at - min(_HAND_BACK_SECONDS, seconds * _HAND_BACK_SHARE))
        if self._end is None:
            self._end = self._spawn(self._drain())

    async def _drain(self) -> None:
        """Empty the hands, close what is open, and end the loop, whatever goes wrong."""
        try:
            while self._has_work():
                if self._taking is not None and not self.fetcher.is_fetching:
                    self._taking.cancel()
                if time.monotonic() >= self._hand_back_at:
                    for item in list(self._assignments.values()):
                        self._stop_run(item)
                await asyncio.sleep(_LOOK_SECONDS)
            if len(self.in_flight):
                logger.warning("jobs_left_to_their_leases", extra={"jobs": len(self.in_flight)})
            work = [task for tasks in (self._fleet_tasks, *self._maintenance_tasks.values()) for task in tasks]
            if self._taking is not None:
                work.append(self._taking)
            for task in work:
                task.cancel()
            await asyncio.gather(*work, return_exceptions=True)
            await self._leave_the_fleet()
            for service in self.services:
                await service.stop()
            await self._close_api()
            await self._link.disconnect()
        finally:
            asyncio.get_running_loop().stop()

    def _has_work(self) -> bool:
        """Whether Celery may still want something, or jobs are in hand or on their way, and there is time for them."""
        if not self._celery_is_done.is_set():
            return True
        is_taking = self._taking is not None and not self._taking.done()
        return (is_taking or len(self.in_flight) > 0) and time.monotonic() < self._end_at


def _key(delivery: Delivery) -> tuple[str, str]:
    """What tells a job's deliveries apart: this worker may get a job again that was taken from it."""
    return delivery.ref, delivery.lease_token


def _known_answer(delivery: Delivery, claim: Claim) -> ClaimAnswer | None:
    """What the server said of the id along with the take, if it was this one that was claimed."""
    if delivery.claimed is None or delivery.claimed[0] != claim:
        return None
    return ClaimAnswer(delivery.claimed[1])
