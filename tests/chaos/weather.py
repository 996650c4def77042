"""What the API does to its callers: it is slow as APIs are, never lets some conversations pass, and has its storms."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sandbox.faults import Delay, DelayBetween, DelayLognormal, Drip, Drop, Respond, WrongBody
from sandbox.script import Quota, Rule, Script
from tests.chaos.plan import Act, Kind

if TYPE_CHECKING:
    from collections.abc import Iterable

_LATENCY_SIGMA = 0.8

STORMS: dict[Act, tuple[Rule, ...]] = {
    Act.API_ERRORS: (
        Rule(then=Respond(status=500), probability=0.3),
        Rule(then=Respond(status=503, headers={"Retry-After": "1"}), probability=0.02),
        Rule(then=Respond(status=502, body="<html>", content_type="text/html"), probability=0.4),
    ),
    Act.API_DROPS: (
        Rule(then=Drop(at="request"), probability=0.15),
        Rule(then=Drop(at="request", reset=True), probability=0.15),
        Rule(then=Drop(at="headers"), probability=0.15),
        Rule(then=Drop(at="body"), probability=0.15),
        Rule(then=Drop(at="after_answer"), probability=0.2),
    ),
    Act.API_DRIPS: (
        Rule(then=Drip(every_ms=40), probability=0.15),
        Rule(then=Drip(every_ms=20, size=10), probability=0.3),
    ),
    Act.API_SLOW: (
        Rule(then=DelayBetween(low_ms=200, high_ms=2500), probability=0.5),
        Rule(then=Delay(ms=60_000), probability=0.15),
    ),
    Act.API_WRONG: tuple(
        Rule(then=WrongBody(what=what), probability=0.15)
        for what in ("empty", "not_json", "array", "other_id", "locked_false", "unknown_enum", "nulls")
    ),
    Act.API_BUSY: (Rule(then=Respond(status=429, headers={"Retry-After": "1"}), probability=0.05),),
}
"""The rules that a fault of the API adds while it lasts."""


def script(seed: int, median_ms: float, storms: Iterable[Act], quota: int | None = None) -> Script:
    """The API's script while these storms last."""
    always = (
        Rule(then=DelayLognormal(median_ms=median_ms, sigma=_LATENCY_SIGMA)),
        Rule(ids=f"{Kind.MISSING}-*", then=Respond(status=404)),
        Rule(ids=f"{Kind.FORBIDDEN}-*", then=Respond(status=403)),
        Rule(ids=f"{Kind.HOPELESS}-*", then=Respond(status=500)),
    )
    # Those that never pass come first: a storm has answers, too, that confirm the lock.
    rules = (*always, *(rule for storm in storms for rule in STORMS[storm]))
    return Script(seed=seed, rules=rules, quota=None if quota is None else Quota(calls=quota, retry_after="1"))
