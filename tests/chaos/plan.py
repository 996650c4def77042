"""What a round will do, all of it drawn from its seed before the round begins: the jobs, the faults and the settings.

The same seed, length and target give the same plan. When each thing then happens inside a worker is up to the
machine, so a replay does the same things, and usually, not always, meets the same fate.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import StrEnum
from itertools import cycle
from random import Random
from typing import TYPE_CHECKING, Literal, TypeAlias

from tests.chaos.steering import ACTORS, RULES, Action, draw_steers

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.chaos.steering import Steer

Target: TypeAlias = Literal["lock-worker", "stock-celery"]
Topology: TypeAlias = Literal["single", "sentinel", "cluster"]

#: The lease of the workers under test, in seconds; the lengths of stalls and outages are chosen around it.
LEASE_SECONDS = 4.0
#: Some stalls of a worker end well before its leases could be over, others well after: only then others may have its
#: jobs. A pause of Redis may have any length.
BLINK_SECONDS = (0.2, 1.3)
STALL_SECONDS = (LEASE_SECONDS * 1.3, LEASE_SECONDS * 2.2)
PAUSE_SECONDS = (0.2, LEASE_SECONDS * 1.3)

#: Between two faults, for one pod; with more of them there are more faults.
_MEAN_GAP_SECONDS = 4.5
#: At most so many jobs come in a second, and of what the workers could do at best at most this share.
_JOBS_PER_SECOND = 100
_LOAD_SHARE = 0.3
#: Of the API's latency.
_MEAN_OVER_MEDIAN = 1.4
_DUPLICATE_SHARE = 0.06
_COUNTDOWN_SHARE = 0.06
_PRIORITY_SHARE = 0.15
_INSISTENT_SHARE = 0.5
_BURST_SHARE = 0.01


class Kind(StrEnum):
    """What a job is, and so how it must end. The conversation's id begins with it, and the sandbox goes by that."""

    GOOD = "good"
    DRY_RUN = "dry"
    MISSING = "missing"
    FORBIDDEN = "forbidden"
    HOPELESS = "hopeless"  # the API always fails for it
    EXPIRING = "expiring"
    CONFLICT = "conflict"  # two jobs share an id: one is locked, the other one rejected
    INVALID = "invalid"
    NAMELESS = "nameless"  # bytes without a job id


_KIND_WEIGHTS = {
    Kind.GOOD: 73, Kind.DRY_RUN: 3, Kind.MISSING: 4, Kind.FORBIDDEN: 2, Kind.HOPELESS: 10, Kind.EXPIRING: 2,
    Kind.CONFLICT: 1, Kind.INVALID: 3, Kind.NAMELESS: 2,
}  # fmt: skip
#: The id of another kind stands for two jobs, or says nothing of its end.
_CANCELLED_BY_ID = {Kind.GOOD, Kind.DRY_RUN, Kind.MISSING, Kind.FORBIDDEN, Kind.HOPELESS}
#: A limit of the calls a second, ours or the API's, leaves room for the calls that hopeless jobs need beside.
_LIMIT_SHARES = (2.8, 3.5)
_RATE_LIMITED_ROUNDS = 0.3
_QUOTA_ROUNDS = 0.6
#: In some rounds a rule may ask for a share of all jobs, which is less than its part.
_RULE_LIMITED_ROUNDS = 0.25
_RULE_LIMIT_SHARE = 0.06


class Route(StrEnum):
    """Who sends a message."""

    CELERY = "celery"  # stock Celery's send_task
    RAW = "raw"  # a client that writes the message itself


@dataclass(frozen=True, slots=True)
class Send:
    """One message: when, by whom, and whether its sender tries again when Redis does not answer."""

    at: float
    route: Route
    is_insistent: bool


@dataclass(frozen=True, slots=True)
class Job:
    """A job with its messages: the first one, and duplicates of it.

    Attributes:
        id: the job id; that of a nameless job says only which one it is.
        conversation: belongs to this job alone.
        variant: which of the ways to write (or to spoil) its message.
        countdown: seconds it is not to be called before; 0 for none.
        expires: seconds after which it is not to be called; 0 for never.
    """

    id: str
    kind: Kind
    conversation: str
    variant: int
    countdown: float
    expires: float
    priority: int
    sends: tuple[Send, ...]

    @property
    def key(self) -> str:
        """What tells jobs apart in a history."""
        return f"{self.id} {self.conversation}" if self.kind is Kind.CONFLICT else self.id

    @property
    def rule(self) -> str:
        """The rule that asked for it."""
        return f"rule-{self.variant // 7 % RULES}"

    @property
    def actor(self) -> str:
        """Who asked for it."""
        return f"actor-{self.variant // 11 % ACTORS}"


class Act(StrEnum):
    """A fault."""

    KILL = "SIGKILL of a worker"
    STALL = "SIGSTOP of a worker, longer than its lease"
    BLINK = "SIGSTOP of a worker, shorter than its lease"
    TERM = "SIGTERM of a worker"
    REDIS_KILL = "SIGKILL and restart of Redis"
    REDIS_RESTART = "graceful restart of Redis"
    REDIS_PAUSE = "pause of Redis"
    REDIS_STALL = "pause of Redis, longer than a lease"
    CUT = "CLIENT KILL of every connection"
    FLUSH = "SCRIPT FLUSH"
    FAILOVER = "failover of Redis by command"
    SLOT_MOVE = "move of the queue's slot"
    CUT_OFF = "network cut between the primary and all others"
    SPLIT = "network cut between the primary with its clients and all others"
    API_AWAY = "API refuses connections"
    API_ERRORS = "API answers 5xx"
    API_DROPS = "API drops connections"
    API_DRIPS = "API drips its answers"
    API_SLOW = "API is slower than the timeout"
    API_WRONG = "API confirms nothing"
    API_BUSY = "API answers 429 with Retry-After"
    TOKEN = "API token rotated"

    @property
    def on(self) -> str:
        """What it befalls: of one thing only one fault is under way at a time."""
        if self in _OF_WORKERS:
            return "worker"
        return "redis" if self in _OF_REDIS else self.name


_OF_WORKERS = {Act.KILL, Act.STALL, Act.BLINK, Act.TERM}
_OF_REDIS = {Act.REDIS_KILL, Act.REDIS_RESTART, Act.REDIS_PAUSE, Act.REDIS_STALL, Act.CUT, Act.FLUSH}
_OF_REDIS |= {Act.FAILOVER, Act.SLOT_MOVE, Act.CUT_OFF, Act.SPLIT}

_ACT_WEIGHTS = {
    Act.KILL: 48, Act.STALL: 7, Act.BLINK: 4, Act.TERM: 7,
    Act.REDIS_KILL: 5, Act.REDIS_RESTART: 4, Act.REDIS_PAUSE: 4, Act.REDIS_STALL: 2, Act.CUT: 5, Act.FLUSH: 4,
    Act.API_AWAY: 3, Act.API_ERRORS: 4, Act.API_DROPS: 4, Act.API_DRIPS: 2, Act.API_SLOW: 3, Act.API_WRONG: 2,
    Act.API_BUSY: 3, Act.TOKEN: 2,
}  # fmt: skip
#: Even a short round does these; what it does beside them is drawn.
_ALWAYS = (
    *[Act.KILL] * 6, Act.STALL, Act.TERM, Act.REDIS_KILL, Act.REDIS_RESTART, Act.REDIS_STALL, Act.CUT, Act.FLUSH,
    Act.API_AWAY, Act.API_ERRORS, Act.API_DROPS, Act.API_SLOW, Act.API_BUSY, Act.TOKEN,
)  # fmt: skip
_SECONDS = {
    Act.STALL: STALL_SECONDS, Act.BLINK: BLINK_SECONDS,
    Act.REDIS_KILL: (0.0, 2.0), Act.REDIS_RESTART: (0.0, 1.0),
    Act.REDIS_PAUSE: PAUSE_SECONDS, Act.REDIS_STALL: STALL_SECONDS,
    Act.API_AWAY: (0.5, 4.0), Act.API_ERRORS: (2.0, 6.0), Act.API_DROPS: (2.0, 6.0), Act.API_DRIPS: (2.0, 6.0),
    Act.API_SLOW: (2.0, 6.0), Act.API_WRONG: (1.0, 4.0), Act.API_BUSY: (1.0, 4.0), Act.TOKEN: (0.0, 3.0),
}  # fmt: skip


#: What befalls a Redis that has replicas, in turn; which is the first, the seed says.
ACTS: dict[Topology, tuple[Act, ...]] = {
    "sentinel": (Act.REDIS_KILL, Act.CUT_OFF, Act.FAILOVER, Act.SPLIT, Act.REDIS_STALL),
    "cluster": (Act.REDIS_KILL, Act.SLOT_MOVE, Act.FAILOVER, Act.SLOT_MOVE, Act.REDIS_STALL),
}
#: How long it takes from the end of one of them until all is well again, in seconds. Sentinels let ten seconds pass
#: before they make an old primary a replica.
_REST_SECONDS: dict[Topology, float] = {"sentinel": 13.0, "cluster": 5.0}
#: A killed primary comes back, and a stalled one goes on, when another one has long taken its place. A primary that is
#: cut off with its clients takes their writes until its replicas have been silent for some seconds.
_AWAY_SECONDS = {
    Act.REDIS_KILL: (5.0, 7.0), Act.REDIS_STALL: (5.0, 7.0), Act.CUT_OFF: (5.0, 7.0), Act.SPLIT: (8.0, 9.0),
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Fault:
    """A fault: when it begins, how long it lasts, and which pod it befalls."""

    at: float
    act: Act
    seconds: float
    pod: int

    def __str__(self) -> str:
        pod = f", pod {self.pod}" if self.act.on == "worker" else ""
        return f"{self.at:7.2f} s  {self.act}{pod}" + (f", {self.seconds:.1f} s" if self.seconds else "")


@dataclass(frozen=True, slots=True)
class Plan:
    """A round.

    Attributes:
        rate_limit: the workers' own, in calls a second over the fleet; None for no limit.
        quota: calls that the API accepts in a second, and refuses beyond with 429; None for any number.
        steers: what operators do meanwhile.
        rule_limit: the jobs that a rule may ask for in the whole round before it is held; None for any number.
        topology: the kind of Redis.
    """

    seed: int
    seconds: float
    target: Target
    server: Literal["redis", "valkey"]
    pods: int
    concurrency: int
    shutdown_seconds: float
    rate_limit: float | None
    quota: int | None
    api_median_ms: float
    jobs: tuple[Job, ...]
    faults: tuple[Fault, ...]
    steers: tuple[Steer, ...] = ()
    rule_limit: int | None = None
    topology: Topology = "single"


def make_plan(seed: int, seconds: float, target: Target = "lock-worker", *, kills_only: bool = False) -> Plan:
    """Plan a round in which faults happen for so many seconds.

    A stock Celery worker has no chance against most of the faults, and ends over a message that is not quite as
    Celery writes it. So with it a round only kills, and all jobs are good ones, from Celery. ``kills_only`` makes such
    a round for the lock-worker too, to compare the two.
    """
    random = Random(seed)
    is_plain = kills_only or target == "stock-celery"
    pods = random.randint(2, 4)
    concurrency = random.choice([5, 20, 60])
    median_ms = random.choice([50.0, 200.0, 400.0])
    most = pods * concurrency / (median_ms / 1000 * _MEAN_OVER_MEDIAN)
    per_second = random.uniform(0.5, 1.0) * min(_JOBS_PER_SECOND, most * _LOAD_SHARE)
    limit = max(5, round(per_second * random.uniform(*_LIMIT_SHARES)))
    limited = 1.0 if is_plain else random.random()
    plan = Plan(
        seed=seed,
        seconds=seconds,
        target=target,
        server=random.choice(["redis", "valkey"]),
        pods=pods,
        concurrency=concurrency,
        shutdown_seconds=random.choice([0.5, 1.5, 5.0]),
        rate_limit=limit if limited < _RATE_LIMITED_ROUNDS else None,
        quota=limit if _RATE_LIMITED_ROUNDS <= limited < _QUOTA_ROUNDS else None,
        api_median_ms=median_ms,
        jobs=tuple(_jobs(random, seconds, per_second, is_plain=is_plain)),
        faults=tuple(_faults(random, seconds, pods, is_plain=is_plain)),
    )
    return plan if is_plain else _steered(random, plan)


def on_topology(plan: Plan, topology: Topology, *, redis_only: bool = False) -> Plan:
    """Return the plan for a Redis of this kind: what befalls the server is what befalls such a Redis.

    Counts of calls and of jobs a rule may be forgotten in a failover, so that there are no limits of ours. A revoke
    through Celery reaches whom it reaches then, once. ``redis_only`` leaves all other faults out, and what operators
    do, to see how long work stands still because of Redis.
    """
    if topology == "single":
        return plan
    befalls = _befalls(plan, topology)
    others = (
        []
        if redis_only
        else [fault for fault in plan.faults if fault.act.on != "redis" or fault.act in {Act.CUT, Act.FLUSH}]
    )
    return replace(
        plan,
        topology=topology,
        faults=tuple(sorted([*others, *befalls], key=lambda fault: fault.at)),
        rate_limit=None,
        rule_limit=None,
        steers=() if redis_only else tuple(steer for steer in plan.steers if steer.action is not Action.REVOKE),
    )


def _befalls(plan: Plan, topology: Topology) -> Iterator[Fault]:
    random, acts = Random(plan.seed), ACTS[topology]
    first = plan.seed % len(acts)
    at = 2.0
    for act in cycle((*acts[first:], *acts[:first])):
        at += random.uniform(0.0, 1.0)
        length = random.uniform(*_AWAY_SECONDS.get(act, (0.0, 0.0)))
        yield Fault(at, act, length, 0)
        at += length + _REST_SECONDS[topology]
        if at > plan.seconds:
            break


def _steered(random: Random, plan: Plan) -> Plan:
    """Return the plan with what operators do, and perhaps with a limit for rules."""
    is_limited = random.random() < _RULE_LIMITED_ROUNDS
    jobs = [(job.sends[0].at, job.id) for job in plan.jobs if job.kind in _CANCELLED_BY_ID]
    steers = draw_steers(random, plan.seconds, jobs, may_hold_rules=not is_limited)
    limit = max(3, round(len(plan.jobs) * _RULE_LIMIT_SHARE)) if is_limited else None
    return replace(plan, steers=tuple(steers), rule_limit=limit)


def _jobs(random: Random, seconds: float, per_second: float, *, is_plain: bool) -> Iterator[Job]:
    moments = _arrivals(random, seconds, per_second)
    for number, at in enumerate(moments):
        kind = Kind.GOOD if is_plain else random.choices([*_KIND_WEIGHTS], [*_KIND_WEIGHTS.values()])[0]
        yield from _job(random, number, at, kind, is_plain=is_plain)


def _arrivals(random: Random, seconds: float, per_second: float) -> list[float]:
    moments = []
    at = 0.0
    while (at := at + random.expovariate(per_second)) < seconds:
        moments += [at] * (random.randint(20, 80) if random.random() < _BURST_SHARE else 1)
    return moments


def _job(random: Random, number: int, at: float, kind: Kind, *, is_plain: bool) -> Iterator[Job]:
    def send(at: float) -> Send:
        route = Route.RAW if kind is Kind.NAMELESS else Route.CELERY if is_plain else random.choice([*Route])
        # What is no valid job is not known by its id alone, so a second message could be a second job.
        may_insist = kind not in {Kind.INVALID, Kind.NAMELESS}
        return Send(at, route, is_insistent=may_insist and random.random() < _INSISTENT_SHARE)

    is_duplicated = (
        not is_plain and kind in {Kind.GOOD, Kind.MISSING, Kind.DRY_RUN} and random.random() < _DUPLICATE_SHARE
    )
    duplicates = [
        send(at + random.choice([0.0, random.uniform(0, 10)])) for _ in range(random.randint(1, 2) * is_duplicated)
    ]
    has_countdown = not is_plain and kind in {Kind.GOOD, Kind.CONFLICT} and random.random() < _COUNTDOWN_SHARE
    name = f"{kind}-{number:06d}"
    job = Job(
        id=f"{name}-ü" if number % 97 == 0 and not is_plain else name,  # no header can carry it as it is
        kind=kind,
        conversation=name,
        variant=random.randrange(1000),
        countdown=random.uniform(0.1, 5.0) if has_countdown else 0.0,
        expires=random.choice([0.5, 2.0, 60.0]) if kind is Kind.EXPIRING else 0.0,
        priority=random.randint(0, 9) if not is_plain and random.random() < _PRIORITY_SHARE else 0,
        sends=(send(at), *duplicates),
    )
    yield job
    if kind is Kind.CONFLICT:
        later = send(at + random.choice([0.0, random.uniform(0, 3)]))
        yield Job(job.id, kind, f"{name}-other", job.variant, 0.0, 0.0, job.priority, (later,))


def _faults(random: Random, seconds: float, pods: int, *, is_plain: bool) -> Iterator[Fault]:
    always = [] if is_plain else list(_ALWAYS)
    random.shuffle(always)
    free_at: dict[str, float] = {}
    count = round(max(len(_ALWAYS) * 1.3, seconds * pods / _MEAN_GAP_SECONDS))
    for at in sorted(random.uniform(0.5, seconds) for _ in range(count)):
        act = Act.KILL
        if not is_plain:
            # Of what a round always does, the first that can be done now.
            act = next((each for each in always if free_at.get(each.on, 0) <= at), None) or _drawn(random)
        if free_at.get(act.on, 0) > at:
            act = Act.KILL
        if act in always:
            always.remove(act)
        length = random.uniform(*_SECONDS.get(act, (0.0, 0.0)))
        if act.on != "worker":
            free_at[act.on] = at + length + 1.0
        yield Fault(at, act, length, random.randrange(pods))


def _drawn(random: Random) -> Act:
    return random.choices([*_ACT_WEIGHTS], [*_ACT_WEIGHTS.values()])[0]
