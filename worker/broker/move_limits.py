"""The limits of the moves: how much one call may handle, and how long what it notes in Redis is valid."""

from __future__ import annotations

# The size of a message

#: The largest message that is read, and the largest body once it is decompressed.
MAX_MESSAGE_BYTES = 1024 * 1024
#: Of a larger message, and of a rejected one in its dead letter, this many bytes are kept.
KEPT_BYTES = 64 * 1024

# The work of one call, so that no call blocks the server for long

#: A take, a recover and an expire each return jobs until their messages have this many bytes.
TAKE_BYTES = 1024 * 1024
#: A take passes over at most this many jobs without a record that it can read: some milliseconds of the server.
PASSED_JOBS = 1000
#: A promote and a recover each move at most this many jobs.
UPKEEP_JOBS = 500
#: An expire searches the lists for at most this many jobs.
EXPIRE_JOBS = 50
#: It reads about this many entries of the lists at most, which takes the server some milliseconds.
EXPIRE_ENTRIES = 100_000
#: A recover returns the messages of this many of the jobs that it makes ready, for the log.
LOGGED_JOBS = 10
#: A register returns at most this many workers with different settings.
MAX_OTHERS = 20
#: A register keeps the names of this many queues that workers took from, the latest ones.
QUEUES_KEPT = 200

# Operators' controls

#: So many holds, cancels and other fields may stand in the operators' controls.
MAX_CONTROLS = 1000
#: One call of release_held moves this many jobs at most.
RELEASE_HELD_JOBS = 500

# Jobs that workers died on

#: A job runs alone once this many workers died on it, at the latest one crash before it would end as poisoned.
SUSPICIOUS_CRASHES = 2
#: The lowest value of MAX_DELIVERIES: a worker's death does not show which of its jobs killed it. Only a second death,
#: with that job running alone, does.
MIN_DELIVERIES = 2

# The rate of calls

#: How far a burst may run ahead of the rate limit, in microseconds: well below the quarter of a second that would be
#: too much.
BURST_US = 80_000
#: The same for the limit that follows from the API's refusals: an API that counts by the second refuses early calls.
LIMIT_BURST_US = 20_000
#: A permit that was not used for a call is given back within this time, in seconds, or not at all: given back later, it
#: would let calls of one second start in the next.
UNUSED_SECONDS = 0.1
#: The least time between two probes of the fleet.
PROBE_GAP_MS = 250

# How long a note in Redis is valid

#: A worker that drains its slots for a suspect has this long before another worker may try.
DRAIN_MS = 30_000
#: The note of a lost take: far longer than the leases of its jobs last.
LOST_TAKE_MS = 86_400_000
#: A worker's place in the fleet after it registered. Each registers again every few seconds.
WORKER_MS = 30_000
