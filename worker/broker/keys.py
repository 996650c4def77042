r"""Every key the worker uses in Redis, built in this one place.

A queue is a world of its own: all keys but the producers' lists, the two result streams and what belongs to these
begin with ``lw:1:<queue>:``. The number is the version of this layout.

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
``lw:1:<queue>:leases``              zset    refs in flight, by the moment the lease is over (ms)   completed, moved on
``lw:1:<queue>:delayed``             zset    refs that wait, by the moment they are due (ms)        promoted
``lw:1:<queue>:deadlines``           zset    refs ready again, by the moment they are too old (ms)  taken, expired
``lw:1:<queue>:ids:<digest>``        string  what a job id stands for: ``claimed|ended <binding>``  DEDUPLICATE_SECONDS
``lw:1:<queue>:ids:<digest>:other``  string  what else had an event under it: ``ended <binding>``   DEDUPLICATE_SECONDS
``lw:1:<queue>:ids:<end>:unlocked``  string  the outcome of that end, where it was without a lock   DEDUPLICATE_SECONDS
``lw:1:<queue>:counters``            hash    totals since the queue was first used                  never
``lw:1:<queue>:maintenance``         hash    when the fleet last looked after this queue            never
``lw:1:<queue>:draining``            string  the worker that empties its hands for a suspect        seconds (TTL)
``lw:1:<queue>:lost_takes``          hash    takes whose answers were lost, by lease token: when     a day (TTL)
``lw:1:<LOCK_QUEUE>:workers``        hash    the workers there are: when told, and how each is set  seconds (TTL)
``lw:1:<LOCK_QUEUE>:queues``         zset    queues that workers took from, by when they told (ms)  after 200 others
``lw:1:<LOCK_QUEUE>:pause``          string  there while the API has asked the whole fleet to wait  Retry-After (TTL)
``lw:1:<LOCK_QUEUE>:rate``           string  until when the rate limit's permits are given (us)     seconds (TTL)
``lw:1:<LOCK_QUEUE>:limit``          hash    the fleet's flow control: see ``worker.flow_control.limit``    never
``lw:1:<LOCK_QUEUE>:breakers``       hash    workers with an open breaker: when told, and which     a minute (TTL)
``unacked``                          hash    kombu's: what stock Celery workers took, by their tag  acknowledged
``unacked_index``                    zset    kombu's: the tags, by the moment of that (s)           acknowledged
``RESULTS_CHANNEL``                  stream  result events; the pub/sub channel has the same name   RESULTS_MAXLEN
``DEAD_STREAM``                      stream  dead letters: event, queue and raw message             DEAD_MAXLEN
``lw:1:<RESULTS_CHANNEL>:ledger``    string  what the results take in memory, see ``complete.lua``  never
``lw:1:<DEAD_STREAM>:ledger``        string  the same of the dead letters                           never
===================================  ======  =====================================================  ====================

``maintenance`` also names the workers that were lost last, so that each is counted once.
The fleet's flow control stands once, under LOCK_QUEUE, also where workers take from other queues: the API is the same.
So do its workers, and the queues that they took from.
A job id ``ended`` when its real job did. Its dry run, which is another thing, is remembered under ``:other``, and so is
a message that names no conversation (with an empty binding), which is a copy of nothing. A job whose id stands for
another conversation is remembered under a digest of both. ``<end>`` is ``<digest>`` or ``<digest>:other``. A
``<binding>`` is a digest of the conversation id, so what an id costs does not depend on what producers send.

A record's ``token`` names the take that holds the job (empty: nobody); ``size`` is the message's own where only its
beginning is kept in ``raw``; ``first`` is the moment of the first take (ms). What is not there is 0. A job that was put
aside also has ``retry`` (1: a call for it failed), ``deadline`` (when it is too old, ms; without it that is counted
from ``first``) and ``progress`` (what the worker must know of its calls: ``tasks.progress``).
"""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import dataclass
from functools import cached_property, lru_cache
from hashlib import blake2b

PREFIX = "lw:1"
PRIORITY_SEPARATOR = "\x06\x16"
PRIORITY_STEPS = (0, 3, 6, 9)
MAX_PRIORITY = 9
#: Where kombu keeps messages that a stock worker has taken and not acknowledged: by a tag of its own, and when.
UNACKED = "unacked"
UNACKED_INDEX = "unacked_index"


@dataclass(frozen=True)
class Keys:
    """The keys of one queue."""

    queue: str

    @cached_property
    def priority_lists(self) -> tuple[str, ...]:
        """The lists that producers push to, the first priority first."""
        return tuple(f"{self.queue}{PRIORITY_SEPARATOR}{step}" if step else self.queue for step in PRIORITY_STEPS)

    def priority_list(self, priority: int) -> str:
        """The list that producers push jobs of this priority (0 to 9) to."""
        return self.priority_lists[bisect_right(PRIORITY_STEPS, priority) - 1]

    @cached_property
    def arrived(self) -> str:
        """Messages that woke a waiting worker."""
        return f"{PREFIX}:{self.queue}:arrived"

    @cached_property
    def requeued(self) -> str:
        """Refs of jobs that are ready again."""
        return f"{PREFIX}:{self.queue}:requeued"

    @cached_property
    def retries(self) -> str:
        """Refs of jobs that are ready again after a failed call."""
        return f"{PREFIX}:{self.queue}:retries"

    @cached_property
    def deadlines(self) -> str:
        """When jobs that are ready again are too old."""
        return f"{PREFIX}:{self.queue}:deadlines"

    @cached_property
    def suspects(self) -> str:
        """Refs of jobs to be run alone."""
        return f"{PREFIX}:{self.queue}:suspects"

    @cached_property
    def record_prefix(self) -> str:
        """What a record's key begins with; its ref follows."""
        return f"{PREFIX}:{self.queue}:job:"

    @cached_property
    def leases(self) -> str:
        """Refs in flight."""
        return f"{PREFIX}:{self.queue}:leases"

    @cached_property
    def delayed(self) -> str:
        """Refs that wait for their moment."""
        return f"{PREFIX}:{self.queue}:delayed"

    @cached_property
    def id_prefix(self) -> str:
        """What the key of a remembered job id begins with; its digest follows."""
        return f"{PREFIX}:{self.queue}:ids:"

    @cached_property
    def counters(self) -> str:
        """Totals."""
        return f"{PREFIX}:{self.queue}:counters"

    @cached_property
    def maintenance(self) -> str:
        """When the fleet last looked after the queue."""
        return f"{PREFIX}:{self.queue}:maintenance"

    @cached_property
    def draining(self) -> str:
        """The worker that empties its hands for a suspect."""
        return f"{PREFIX}:{self.queue}:draining"

    @cached_property
    def lost_takes(self) -> str:
        """Takes whose workers never heard their answers."""
        return f"{PREFIX}:{self.queue}:lost_takes"

    @cached_property
    def workers(self) -> str:
        """The workers of the fleet, and how each is set."""
        return f"{PREFIX}:{self.queue}:workers"

    @cached_property
    def queues(self) -> str:
        """The queues that workers of this fleet took from."""
        return f"{PREFIX}:{self.queue}:queues"

    @cached_property
    def ready(self) -> tuple[str, ...]:
        """All lists with jobs to be taken."""
        return (*self.priority_lists, self.arrived, self.requeued, self.retries, self.suspects)

    @cached_property
    def under_way(self) -> tuple[str, ...]:
        """Where jobs stand that were taken and are not over: what maintenance looks after."""
        return self.leases, self.delayed, self.deadlines

    @cached_property
    def pause(self) -> str:
        """There while the fleet is to wait."""
        return f"{PREFIX}:{self.queue}:pause"

    @cached_property
    def limit(self) -> str:
        """The rate that the fleet keeps to, and what it was found by."""
        return f"{PREFIX}:{self.queue}:limit"

    @cached_property
    def breakers(self) -> str:
        """Which workers have an open breaker."""
        return f"{PREFIX}:{self.queue}:breakers"

    @cached_property
    def rate(self) -> str:
        """Until when the rate limit's permits are given."""
        return f"{PREFIX}:{self.queue}:rate"


def ledger_of(stream: str) -> str:
    """Where it is counted how many bytes a stream holds. By the stream's name, as several queues may share it."""
    return f"{PREFIX}:{stream}:ledger"


def is_celerys_own(name: str) -> bool:
    """Whether a key is one that Celery's remote control, its events or kombu make for themselves."""
    is_kombus = name in {UNACKED, UNACKED_INDEX, "unacked_mutex"} or name.startswith(("_kombu.", "celeryev"))
    return is_kombus or name.endswith("pidbox")


@lru_cache(maxsize=1024)
def digest(text: str) -> str:
    """A short stand-in for an id: 16 bytes of BLAKE2b as hexadecimal digits.

    The last ones are kept, because a job's are asked for when it is claimed and again when it ends.
    """
    return blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).hexdigest()
