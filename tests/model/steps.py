"""What all steps of the machine share: the server, the constants, a job that a worker holds, and the look at the whole.

Every step is made on a real server and in the model, and then both are compared.
"""

from __future__ import annotations

import asyncio
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import takewhile
from typing import TYPE_CHECKING, Any
from unittest import mock

import hypothesis.strategies as st
from hypothesis.stateful import RuleBasedStateMachine
from redis import Redis

from tests.broker.workbench import RULES, Workbench, link_to
from tests.model import reference, standing
from worker.broker.keys import digest
from worker.cli.audit.law import breaches, law_of
from worker.cli.audit.records import check_records
from worker.cli.audit.snapshot import read_snapshot
from worker.message.controls import Control, Note
from worker.message.selector import Selector

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator
    from types import ModuleType
    from typing import Self, TypeVar

    from tests.model.reference import Message
    from worker.broker.records import ClaimAnswer, Delivery

    Answer = TypeVar("Answer")

WORKERS = ("ann", "bob", "cy")
#: Two ids that are used for two conversations, and one that is used for one alone.
IDS = ("p", "q", "r")
ONE_CONVERSATION_ID = "r"
CONVERSATIONS = ("x", "y")
PRIORITIES = (0, 3, 6, 9)
#: No lease passes by itself, and no moment comes by itself: the machine says when.
HOUR_MS = 3_600_000
MODEL_RULES = replace(
    RULES, lease_ms=HOUR_MS, dedup_ttl_ms=HOUR_MS, max_deliveries=reference.POISONOUS_CRASHES, max_age_ms=HOUR_MS
)
#: What operators hold; the machine's jobs are no jobs to anybody, so any of them may be held by either.
HOLDS = {hold.selector.digest: hold for hold in (
    Control("hold", Selector(rule="r-1"), Note("an operator", "a reason")),
    Control("hold", Selector(actor="a-1"), Note("an operator", "a reason")),
)}  # fmt: skip
#: Between two moments at which deadlines were over; a job is on hold for less while the machine makes its steps.
DEADLINE_STEP_MS = 20_000
#: A rate so low that its second permit never comes by itself, and how long a permit that comes back is waited for.
LOW_RATE = 0.05
WAIT_FOR_A_PERMIT_MS = 20_000
PERMIT_THAT_CAME_BACK_MS = 1_060

MOST_WAITING = 6
PLENTY = 1_000_000
workers = st.sampled_from(WORKERS)
limits = st.sampled_from([1, 2, 3, PLENTY])
byte_limits = st.sampled_from([1, 40, PLENTY])
times = st.integers(1, 2)
few = st.integers(0, 2)
paddings = st.sampled_from([0, 0, 30, reference.LARGEST_BYTES])
seldom = st.sampled_from([False] * 5 + [True])


class Server:
    """A real server, and the two clients that a worker has; what a machine needs and keeps from one run to the next."""

    def __init__(self, url: str) -> None:
        self._url = url

    def __enter__(self) -> Self:
        self._loop = asyncio.new_event_loop()
        self.client: Any = Redis.from_url(self._url, protocol=2)
        self._link = link_to(self._url, timeout_seconds=5)
        self._listener: Any = self.client.pubsub()  # type: ignore[no-untyped-call]
        self._listener.subscribe(MODEL_RULES.results)
        assert self._listener.get_message(timeout=5)["type"] == "subscribe"
        return self

    def __exit__(self, *_: object) -> None:
        self._listener.close()
        self.client.close()
        self.wait(self._link.disconnect())
        self._loop.close()

    def wait(self, coroutine: Awaitable[Answer]) -> Answer:
        """Make a move."""
        return self._loop.run_until_complete(coroutine)

    def heard(self) -> list[bytes]:
        """What was published since the last look."""
        self._listener.ping()
        answers = iter(lambda: self._listener.get_message(timeout=5), None)
        return [answer["data"] for answer in takewhile(lambda answer: answer["type"] != "pong", answers)]

    def bench(self) -> Workbench:
        """An empty queue."""
        self.client.flushall()
        self.heard()  # of a run that was broken off
        return Workbench(self.client, self._link, MODEL_RULES)


@dataclass(slots=True, eq=False)
class Hold:
    """A job that a worker holds, as far as it knows.

    ``claimed`` is what it was told of the job's id (None: it has not asked yet); ``is_taken``: that it names another
    event already.
    """

    worker: str
    job: Delivery
    message: Message
    claimed: ClaimAnswer | None = None
    is_taken: bool = False

    def _repr_pretty_(self, printer: Any, _: object) -> None:
        """How hypothesis shows it in a story."""
        printer.text(
            f"<message {self.message.number} of {self.worker}, ref {self.job.ref}, token {self.job.lease_token}>"
        )


def holds_of(of: Callable[[Any], list[Hold]]) -> st.SearchStrategy[list[Hold]]:
    """A batch of what the machine's workers hold; the same job may stand in it twice."""
    return st.runner().flatmap(lambda machine: st.lists(st.sampled_from(of(machine)), min_size=1, max_size=4))


def one_of(of: Callable[[Any], list[str]]) -> st.SearchStrategy[str]:
    return st.runner().flatmap(lambda machine: st.sampled_from(of(machine)))


class Steps(RuleBasedStateMachine):
    """One queue, on a server and in the model."""

    def __init__(self, server: Server) -> None:
        super().__init__()
        self.server = server
        self.bench = server.bench()
        self._began_ms = self.bench.now_ms()
        self.model = reference.Queue(self._began_ms)
        self.steps = 0
        self.sent: list[Message] = []
        self.held: list[Hold] = []
        #: What no worker holds any more, though one that stalled may still think so.
        self.over: list[Hold] = []
        self._tokens = dict.fromkeys(WORKERS, 0)
        self._past = self._began_ms - HOUR_MS
        self._deadlines_over = 0
        #: Of the fleet's flow control, each that there was.
        self.versions = [0]
        self._before: standing.Standing | None = None

    def _wait(self, coroutine: Awaitable[Answer]) -> Answer:
        return self.server.wait(coroutine)

    @staticmethod
    @contextmanager
    def _limits(module: ModuleType, **limits: Any) -> Iterator[None]:
        """The limits that a module of the broker uses, made small."""
        with mock.patch.multiple(module, **limits):
            yield

    def _read(self) -> standing.Standing:
        keys, broker_options = self.bench.keys, MODEL_RULES
        names = {name for message in self.sent for name in (message.id, message.beside) if name}
        ids = {digest(name): name for name in {*IDS, *names}}
        return standing.read(
            self.server.client, keys, results=broker_options.results, dead=broker_options.dead, ids=ids
        )

    def _audit(self) -> list[str]:
        """What `lock-worker audit` would find wrong."""
        keys, client = self.bench.keys, self.server.client
        snapshot = read_snapshot(client, keys, keys)
        wrong = [breach.text for breach in breaches(law_of(snapshot), snapshot)]
        return wrong + check_records(client, keys).missing

    def _check(self, move: str) -> standing.Standing:
        """The laws hold, and all stands as the model says."""
        now = self._read()
        broken = list(standing.broken_laws(now, self._before, self.sent, move))
        assert broken == [], broken
        assert now.view() == self.model.view()
        assert self._audit() == []
        self._before = now
        self.steps += 1
        return now

    def _forget(self, hold: Hold) -> None:
        if hold in self.held:
            self.held.remove(hold)
            self.over.append(hold)

    def _ms_since_the_begin(self) -> int:
        return self.bench.now_ms() - self._began_ms
