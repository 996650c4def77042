r"""Builds every key that the worker uses in Redis.

Each queue has its own keys, which begin with ``lw:1:<queue>:``; only the producers' lists, the two streams and their
ledgers do not. Workers of all versions find each other under this prefix.

===================================  ======  =====================================================  ====================
key                                  type    holds                                                  gone when
===================================  ======  =====================================================  ====================
``<queue>``                          list    producers' messages of priority 0..2, newest first     taken
``<queue>\x06\x16<3|6|9>``           list    the same for priorities 3..5, 6..8, 9                  taken
``lw:1:<queue>:arrived``             list    messages that woke a waiting worker, newest first      taken
``lw:1:<queue>:requeued``            list    refs of jobs that are ready again, next first          taken
``lw:1:<queue>:retries``             list    the same for jobs whose call failed, beside new work   taken
``lw:1:<queue>:suspects``            list    refs of jobs to be run alone: workers died on them     taken
``lw:1:<queue>:job:<ref>``           hash    job: raw, size, first, attempts, crashes, lease_token  completed
``lw:1:<queue>:leases``              zset    refs in flight, by the time the lease expires (ms)     completed, moved on
``lw:1:<queue>:delayed``             zset    refs that wait, by the time they are due (ms)          promoted
``lw:1:<queue>:held``                zset    ``<hold>:<ref>`` of jobs set aside, by these texts      released
``lw:1:<queue>:deadlines``           zset    refs ready again, by the time they are too old (ms)    taken, expired
``lw:1:<queue>:ids:<digest>``        string  a job id's state: ``claimed|ended <fingerprint>``      DEDUPLICATE_SECONDS
``lw:1:<queue>:ids:<digest>:other``  string  what else ended under it: ``ended <fingerprint>``      DEDUPLICATE_SECONDS
``lw:1:<queue>:ids:<end>:unlocked``  string  the outcome of that end, if it was without a lock      DEDUPLICATE_SECONDS
``lw:1:<queue>:counters``            hash    totals since the queue was first used                  never
``lw:1:<queue>:maintenance``         hash    when the fleet last maintained this queue              never
``lw:1:<queue>:samples``             list    totals every ten seconds, for five minutes             ten minutes (TTL)
``lw:1:<queue>:arrivals``            hash    for each list: from when its oldest message can be     never
``lw:1:<queue>:draining``            string  the worker that drains its slots for a suspect         seconds (TTL)
``lw:1:<queue>:lost_takes``          hash    takes whose answers were lost, by lease token: when     a day (TTL)
``lw:1:<LOCK_QUEUE>:workers``        hash    the workers: when each registered, and its settings    seconds (TTL)
``lw:1:<LOCK_QUEUE>:queues``         zset    queues that workers took from, by the last time (ms)   after 200 others
``lw:1:<LOCK_QUEUE>:pause``          string  exists while the API has asked the fleet to wait       Retry-After (TTL)
``lw:1:<LOCK_QUEUE>:rate``           string  until when the rate limit's permits are given (us)     seconds (TTL)
``lw:1:<LOCK_QUEUE>:limit``          hash    see ``worker.flow_control.limit``                      never
``lw:1:<LOCK_QUEUE>:controls``       hash    operators' pause, holds and cancels, and their version  never
``lw:1:<LOCK_QUEUE>:cancelled``      string  exists while a job id is remembered as cancelled       days (TTL)
``lw:1:<LOCK_QUEUE>:cancelled:<id>`` string  who cancelled a job id (its digest), and why           days (TTL)
``lw:1:<LOCK_QUEUE>:rules:<rule>``   hash    locks that a rule asked for, by tenth of RULE_LIMIT    its time (TTL)
``unacked``                          hash    kombu's: what stock Celery workers took, by their tag  acknowledged
``unacked_index``                    zset    kombu's: the tags, by the time of that (s)             acknowledged
``RESULTS_CHANNEL``                  stream  result events; the pub/sub channel has the same name   RESULTS_MAXLEN
``DEAD_STREAM``                      stream  dead letters: event, queue and raw message             DEAD_MAXLEN
``CONTROL_STREAM``                   stream  what operators did: an event for each action             CONTROL_MAXLEN
``lw:1:<RESULTS_CHANNEL>:ledger``    string  what the results take in memory, see ``complete.lua``  never
``lw:1:<DEAD_STREAM>:ledger``        string  the same for the dead letters                          never
===================================  ======  =====================================================  ====================

``maintenance`` also names the workers that were lost last, so that each is counted once, and in ``layout`` the newest
layout of records that workers of the queue write, with the version of such a worker (:mod:`worker.broker.layout`).

A key ``lw:1:<queue>:absent`` never exists. The call of each script names it last: while a cluster moves the keys of the
queue's slot to another node, a node runs no script whose call names keys that it does not have (TRYAGAIN, ASK). A
script that did run there would find that some records are gone, and could not write new ones.

The fleet's flow control, its workers and the queues that they took from have one set of keys, under LOCK_QUEUE, even
if workers take from other queues: they all call the same API.

The state of a job id becomes ``ended`` when the real job of that id is completed. Two other completions are kept under
``:other``: that of a dry run, and that of a message that names no conversation (with an empty fingerprint, because it
is a duplicate of no job). If an id stands for one conversation already, a job with that id for another conversation
is kept under a digest of the id and the conversation. ``<end>`` is ``<digest>`` or ``<digest>:other``.
``<fingerprint>`` is a digest of the conversation id, so that the memory of an id does not depend on what producers
send.

In a record, ``lease_token`` names the take that has the job (empty: none). ``size`` is the size of the whole message,
where ``raw`` holds only its beginning. ``first`` is the time of the first take (ms). New records omit fields to save
memory: missing ``attempts`` and ``crashes`` mean 0, a missing ``size`` the length of ``raw``. A job that was delayed
also has ``retry`` (1: a call for it failed), ``deadline`` (when it is too old, in ms; without it the age counts from
``first``) and ``progress`` (what the worker must know of what happened so far: ``tasks.progress``); one that was
released after a call has ``progress`` too. ``counted`` is 1 once RULE_LIMIT has counted the job, so that no later take
of it counts again.

``layout`` in a record says how to read it; missing, it is 1. A worker leaves a record of a newer layout than
:data:`LAYOUT` as it is, for a worker that can read it.
"""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import dataclass
from functools import cached_property, lru_cache
from hashlib import blake2b

PREFIX = "lw:1"
#: The newest layout of records that this version reads; ``lua/prelude.lua`` has it too. See docs/upgrading.md.
LAYOUT = 1
PRIORITY_SEPARATOR = "\x06\x16"
PRIORITY_STEPS = (0, 3, 6, 9)
MAX_PRIORITY = 9
#: Where kombu keeps messages that a stock worker has taken and not acknowledged: by tag, and the tags by time.
UNACKED = "unacked"
UNACKED_INDEX = "unacked_index"


def _key(name: str) -> cached_property[str]:
    """Return a property for the key of this name, which is made when it is first read and then kept."""
    return cached_property(lambda keys: f"{PREFIX}:{keys.queue}:{name}")


@dataclass(frozen=True)
class Keys:
    """The keys of one queue; the module's table says what each holds."""

    queue: str

    #: Messages that woke a waiting worker.
    arrived = _key("arrived")
    #: Refs of jobs that are ready again.
    requeued = _key("requeued")
    #: Refs of jobs that are ready again after a failed call.
    retries = _key("retries")
    #: Refs of jobs to be run alone.
    suspects = _key("suspects")
    #: Refs of jobs that are ready again, by the time they are too old.
    deadlines = _key("deadlines")
    #: Refs of jobs in flight, by the time their leases expire.
    leases = _key("leases")
    #: Refs of delayed jobs, by the time they are due.
    delayed = _key("delayed")
    #: Jobs that are set aside until their hold is released, ordered by hold.
    held = _key("held")
    #: The beginning of a record's key; the ref follows.
    record_prefix = _key("job:")
    #: The beginning of a job id's key; the digest of the id follows.
    id_prefix = _key("ids:")
    #: Totals since the queue was first used.
    counters = _key("counters")
    #: When the fleet last promoted and recovered jobs of the queue.
    maintenance = _key("maintenance")
    #: Earlier totals, from which rates are computed.
    samples = _key("samples")
    #: From when on the oldest message of each of the producers' lists can be.
    arrivals = _key("arrivals")
    #: The worker that drains its slots for a suspect.
    draining = _key("draining")
    #: Lease tokens of takes whose answers were lost.
    lost_takes = _key("lost_takes")
    #: Never exists. Each script's call names it last, so that none runs while a cluster moves the queue's slot.
    absent = _key("absent")
    # The rest is used for LOCK_QUEUE alone.

    #: The workers of the fleet, and the settings of each.
    workers = _key("workers")
    #: The queues that workers of this fleet took from.
    queues = _key("queues")
    #: What operators asked for: the pause, holds and cancels.
    controls = _key("controls")
    #: Exists while some job ids are remembered as cancelled.
    cancelled = _key("cancelled")
    #: The beginning of the key of a cancelled job id; the digest of the id follows.
    cancelled_prefix = _key("cancelled:")
    #: The beginning of the key that counts the locks that a rule asks for; the rule's digest follows.
    rules_prefix = _key("rules:")
    #: Exists while the API has asked the fleet to wait.
    pause = _key("pause")
    #: The fleet's rate limit that follows from the API's answers, and its state.
    limit = _key("limit")
    #: The time up to which the permits of the rate limit are given out.
    rate = _key("rate")

    @cached_property
    def priority_lists(self) -> tuple[str, ...]:
        """The lists that producers push to, highest priority first."""
        return tuple(f"{self.queue}{PRIORITY_SEPARATOR}{step}" if step else self.queue for step in PRIORITY_STEPS)

    def priority_list(self, priority: int) -> str:
        """Return the list that producers push jobs of this priority (0 to 9) to."""
        return self.priority_lists[bisect_right(PRIORITY_STEPS, priority) - 1]

    @cached_property
    def ready(self) -> tuple[str, ...]:
        """The lists of jobs that are ready to be taken."""
        return (*self.priority_lists, self.arrived, self.requeued, self.retries, self.suspects)

    @cached_property
    def under_way(self) -> tuple[str, ...]:
        """The indexes of jobs that were taken and are not completed: what maintenance works on."""
        return self.leases, self.delayed, self.deadlines, self.held


def ledger_of(stream: str) -> str:
    """Return the key that counts the bytes of a stream. It has the stream's name, as several queues may share one."""
    return f"{PREFIX}:{stream}:ledger"


def hash_tag(name: str) -> str:
    """Return the part of a name between braces that alone decides on its slot in a cluster; empty: there is none."""
    tag, closing, _ = name.partition("{")[2].partition("}")
    return tag if closing else ""


def is_in_slot(name: str, tag: str) -> bool:
    """Return whether a key is in the slot of a hash tag, given with its braces; empty without a cluster: always."""
    return not tag or f"{{{hash_tag(name)}}}" == tag


def slot_problem(name: object, tag: str) -> str | None:
    """Return why a queue cannot be used beside LOCK_QUEUE on a cluster, as the end of a sentence; None if it can.

    ``tag`` is the hash tag that all names must hold, with its braces; empty without a cluster.
    """
    if not is_in_slot(str(name), tag):
        return f"its name must hold the hash tag {tag} on a Redis Cluster, so that all its keys are in one slot"
    return None


def is_celerys_own(name: str) -> bool:
    """Return True if Celery's remote control, its events or kombu made this key."""
    is_kombus = name in {UNACKED, UNACKED_INDEX, "unacked_mutex"} or name.startswith(("_kombu.", "celeryev"))
    return is_kombus or name.endswith("pidbox")


@lru_cache(maxsize=1024)
def digest(text: str) -> str:
    """Return a short digest of an id: 16 bytes of BLAKE2b as hexadecimal digits.

    The latest ones are cached, because a job needs them at its claim and again at its completion.
    """
    return blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).hexdigest()
