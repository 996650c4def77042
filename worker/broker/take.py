"""Calls ``take.lua`` and reads its answer."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from worker.broker import scripts
from worker.broker.move_limits import (
    BURST_US,
    DRAIN_MS,
    KEPT_BYTES,
    LIMIT_BURST_US,
    MAX_MESSAGE_BYTES,
    PASSED_JOBS,
    PROBE_GAP_MS,
    TAKE_BYTES,
)
from worker.broker.records import TAKE_JOBS, Delivery, Taken, TakeState
from worker.broker.script_answers import read_delivery, read_fleet
from worker.broker.script_calls import command

if TYPE_CHECKING:
    from worker.broker.broker_options import BrokerOptions
    from worker.broker.keys import Keys
    from worker.broker.records import TakeRequest
    from worker.broker.script_calls import Command

#: A take returns only the ref and the bytes of a new job.
_FIELDS_OF_A_NEW_JOB = 2


def take_command(
    keys: Keys,
    broker_options: BrokerOptions,
    *,
    token: str,
    worker: str,
    request: TakeRequest,
    whole_text: bool = False,
) -> Command:
    """Return the call of ``take.lua`` for one request."""
    return command(
        scripts.TAKE,
        [
            keys.requeued, keys.suspects, keys.arrived, keys.leases, keys.counters, keys.maintenance, keys.draining,
            broker_options.fleet.pause, broker_options.fleet.rate, broker_options.fleet.limit, keys.retries,
            keys.deadlines, broker_options.fleet.controls, keys.delayed, *keys.priority_lists,
            keys.absent,
        ],
        [
            keys.record_prefix, token, min(request.wanted, TAKE_JOBS), TAKE_BYTES, broker_options.lease_ms,
            worker, request.held, DRAIN_MS, MAX_MESSAGE_BYTES, KEPT_BYTES, broker_options.interval_us, BURST_US,
            LIMIT_BURST_US,
            request.which_new, int(request.is_probe), request.retries_first, request.max_retries,
            request.answered, request.failed, request.unused, PROBE_GAP_MS, request.version, PASSED_JOBS,
        ],
        whole_text=whole_text,
    )  # fmt: skip


def read_take(
    answer: list[Any], keys: Keys, broker_options: BrokerOptions, *, token: str, sent_at: float, wanted: int
) -> Taken:
    """Read the answer of ``take.lua`` to a request for ``wanted`` jobs.

    ``sent_at`` is the monotonic time just before the take was sent; the leases count from there.
    """
    state = TakeState(answer[0])
    server_ms = int(answer[1])
    fleet = read_fleet(answer[3])
    jobs = [
        _read_new(job, keys, broker_options, token, sent_at, server_ms=server_ms, ages_behind_ms=fleet.ages_behind_ms)
        if len(job) == _FIELDS_OF_A_NEW_JOB
        else read_delivery(job, keys, broker_options, token, sent_at, is_alone=state is TakeState.ALONE)
        for job in answer[4:]
    ]
    # Fewer than requested, and no bound of a take was reached: so there were no more.
    is_short = len(jobs) < min(wanted, TAKE_JOBS) and sum(len(job.raw) for job in jobs) < TAKE_BYTES
    is_limited = broker_options.rate is not None or fleet.rate > 0
    is_all = state is TakeState.EMPTY or (state is TakeState.JOBS and is_short and not is_limited)
    return Taken(state, server_ms, int(answer[2]), fleet, jobs, is_all)


def _read_new(
    job: list[bytes],
    keys: Keys,
    broker_options: BrokerOptions,
    token: str,
    sent_at: float,
    *,
    server_ms: int,
    ages_behind_ms: int,
) -> Delivery:
    ref, raw = job
    return Delivery(
        ref=ref.decode(), lease_token=token, raw=raw, size=len(raw), received_ms=server_ms, attempts=0, crashes=0,
        lease_until=sent_at + broker_options.lease_ms / 1000, queue=keys.queue,
        age_offset_ms=-ages_behind_ms,
    )  # fmt: skip
