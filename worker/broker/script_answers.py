"""Reads the parts that several scripts' answers have in common: a leased job, and the fleet's flow control."""

from __future__ import annotations

from typing import TYPE_CHECKING

from worker.broker.records import Delivery, FleetNews

if TYPE_CHECKING:
    from worker.broker.broker_options import BrokerOptions
    from worker.broker.keys import Keys


def read_fleet(answer: list[bytes]) -> FleetNews:
    """Return the fleet's flow control as a script answered it."""
    version, epoch, rate, answered, failed, paused_ms, state, controls, ages_behind_ms = answer
    return FleetNews(
        version=int(version), epoch=int(epoch), rate=float(rate), answered=int(answered), failed=int(failed),
        paused_ms=int(paused_ms), state=state or None, controls=int(controls), ages_behind_ms=int(ages_behind_ms),
    )  # fmt: skip


def read_delivery(
    job: list[bytes], keys: Keys, broker_options: BrokerOptions, token: str, sent_at: float, *, is_alone: bool = False
) -> Delivery:
    """Return a job that a script leased to this worker.

    Args:
        job: the fields of its record, as the script answered them.
        keys: the keys of its queue.
        broker_options: the options that the script was called with.
        token: the lease token that the script was called with.
        sent_at: the monotonic time just before the call was sent; the lease counts from there.
        is_alone: this worker must run no other job beside it.
    """
    ref, raw, size, first, attempts, crashes, retry, progress, age_offset = job
    return Delivery(
        ref=ref.decode(), lease_token=token, raw=raw, size=int(size),
        received_ms=int(first), attempts=int(attempts), crashes=int(crashes),
        lease_until=sent_at + broker_options.lease_ms / 1000, queue=keys.queue,
        is_retry=retry == b"1", progress=progress, age_offset_ms=int(age_offset), runs_alone=is_alone,
    )  # fmt: skip
