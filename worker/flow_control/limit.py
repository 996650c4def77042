"""Computes the fleet's rate limit while the API refuses calls for load (429, or 503 with ``Retry-After``).

A refusal cuts the rate to a little less than what the API accepted just before, and pauses the fleet. Afterwards the
rate rises in steps: it doubles up to the rate after the cut, climbs slowly to the refused rate, and then ever faster
until the next refusal. This is TCP's congestion control (RFC 5681; the plateau is CUBIC's, RFC 9438) over calls a
second. Unlike there, one step down is small, because a quota is a sharp edge and not a queue.

A refusal before any call was accepted means that the pause was too short. The next pause is longer, and single calls
find out when it is over. If such waits were long, the quota counts by the minute or the hour; then the calls accepted
between two refusals, waits included, give the rate that it allows.

All functions are pure: from a state, and a refusal or the passing of time, follows the next state. The state is stored
in Redis as one JSON text; any other text there is read as no limit.
"""

from __future__ import annotations

import json
import math
from dataclasses import asdict, dataclass, replace
from typing import Any

#: A cut leaves this share of the refused rate. It is a small cut, so that a fleet settles within 5 % below a quota.
_CUT = 0.97
#: One refusal lowers the measured ceiling by this factor at most: it may come before a full second was measured.
_LOWEST_SHARE = 0.5
#: The lowest rate, in calls a second: one probe every ten seconds.
LOWEST_RATE = 0.1
#: The rate while it is unknown whether the API accepts any call.
_PROBE_RATE = 1.0
#: After a pause, calls begin with this share of the rate.
_FIRST_SHARE = 0.5
#: The least time between two raises of the rate, in seconds.
STEP_SECONDS = 0.5
#: How long the rate takes to climb back to the refused rate, in seconds: at first, and after the same rate was refused
#: again and again, as by a quota.
_FIRST_HOLD_SECONDS = 5.0
_MAX_HOLD_SECONDS = 120.0
_SAME_CEILING = 0.1
#: Beyond that, a step raises the rate by this share, and by half at most. The share doubles in a third of the time of
#: the climb.
_FIRST_RAISE = 0.0025
_RAISE_DOUBLES_SHARE = 1 / 3
_MAX_RAISE = 0.5
#: A fleet that uses less than this share of a limit does not test it. If that lasts, or if the rate has grown to so
#: many times the refused one, the limit is dropped.
_USED_SHARE = 0.7
_FORGET_SECONDS = 600.0
_FORGET_TIMES = 3.0
#: A call this long before the end of a pause means that the pause was lifted.
_LIFTED_SECONDS = 2.0
#: The fleet's own pause if the API named none: at first and at most, in seconds. It doubles with each refusal until the
#: API accepts a call again.
_FIRST_PAUSE_SECONDS = 0.5
_MAX_PAUSE_SECONDS = 30.0
#: Waits beyond this, in seconds, mean that the quota does not count by the second.
_LONG_WAIT_SECONDS = 3.0
#: The accepted rate is measured over so many calls, within so many seconds at least and at most.
_MEASURED_CALLS = 20.0
_MIN_MEASURE_SECONDS = 2.0
#: While the rate doubles, only the last seconds show how far it may go.
_RISING_SECONDS = 1.6
MAX_MEASURE_SECONDS = 30.0


@dataclass(frozen=True, slots=True)
class Limit:
    """The state of the limit.

    Attributes:
        rate: the limit in calls a second; 0: no limit.
        target: the rate after the last cut; the rate doubles until it reaches it again. 0: unknown, as the API accepted
            no call yet, so the rate doubles until the next refusal.
        ceiling: the rate that was refused last; 0: unknown.
        hold_seconds: how long the climb from target to ceiling takes.
        refusals: the cuts since the API last accepted a call.
        accepted_at_cut: the calls that the API had accepted by the last cut.
        began_ms: the time of the last refusal that came after an accepted call, in milliseconds of the server's clock.
        cut_ms: the end of the pause of the last cut.
        changed_ms: the time of the last change of the rate.
        by: the worker whose call was refused.
        status: the HTTP status of the refusal.
    """

    rate: float = 0.0
    target: float = 0.0
    ceiling: float = 0.0
    hold_seconds: float = _FIRST_HOLD_SECONDS
    refusals: int = 0
    accepted_at_cut: int = 0
    began_ms: int = 0
    cut_ms: int = 0
    changed_ms: int = 0
    by: str = ""
    status: int = 0

    def to_json(self) -> str:
        """Return the text that is stored in Redis."""
        return json.dumps(asdict(self), separators=(",", ":"))


NO_LIMIT = Limit()


def from_json(text: bytes | str) -> Limit:
    """Read a limit from its text in Redis; any other text means no limit."""
    try:
        values = json.loads(text)
        limit = Limit(**{name: type(getattr(NO_LIMIT, name))(values[name]) for name in asdict(NO_LIMIT)})
    except (ValueError, TypeError, KeyError, OverflowError, RecursionError):
        return NO_LIMIT
    numbers = [value for value in asdict(limit).values() if not isinstance(value, str)]
    return limit if all(math.isfinite(number) and number >= 0 for number in numbers) else NO_LIMIT


@dataclass(frozen=True, slots=True)
class LoadRefusal:
    """A call that the API refused for load, and the fleet's calls until then.

    Attributes:
        status: 429 or 503.
        retry_after: the seconds that the API asked for, cut to what is honoured; None: it named none.
        accepted: the calls that the API accepted so far.
        accepted_per_second: how many a second it accepted recently (see :func:`measure_seconds`).
    """

    status: int
    retry_after: float | None
    accepted: int
    accepted_per_second: float


def measure_seconds(limit: Limit, now_ms: float) -> float:
    """Return the seconds over which to measure what the API accepts; no longer than calls have been sent."""
    if limit.rate == 0:
        return 1.0
    if limit.rate < limit.target:
        return _RISING_SECONDS
    seconds = min(MAX_MEASURE_SECONDS, max(_MIN_MEASURE_SECONDS, _MEASURED_CALLS / limit.rate))
    return max(1.0, min(seconds, (now_ms - limit.cut_ms) / 1000))


def cut(limit: Limit, refusal: LoadRefusal, *, now_ms: float, by: str, max_pause: float) -> tuple[Limit, float]:
    """Return what follows from a refusal: the new limit, and the seconds that the fleet pauses."""
    was_accepted = limit.rate == 0 or _accepted_since_cut(limit, refusal.accepted, now_ms) > 0
    refusals = 1 if was_accepted else limit.refusals + 1
    if was_accepted:
        ceiling = _ceiling(limit, refusal, now_ms)
        is_same = abs(ceiling - limit.ceiling) <= _SAME_CEILING * limit.ceiling
        hold = _hold(limit, is_same=is_same and limit.ceiling > 0)
        target = max(LOWEST_RATE, _CUT * ceiling) if ceiling else 0.0
        rate = max(LOWEST_RATE, _FIRST_SHARE * target) if target else _PROBE_RATE
        lowered = replace(
            limit, rate=rate, target=target, ceiling=ceiling, hold_seconds=hold, began_ms=round(now_ms)
        )  # fmt: skip
    else:
        lowered = replace(limit, rate=max(LOWEST_RATE, min(_PROBE_RATE, limit.rate)))
    pause = _pause(refusals, refusal.retry_after, max_pause)
    return (
        replace(
            lowered,
            refusals=refusals,
            accepted_at_cut=refusal.accepted,
            cut_ms=round(now_ms + pause * 1000),
            changed_ms=round(now_ms + pause * 1000),
            by=by,
            status=refusal.status,
        ),
        pause,
    )


def _waited_seconds(limit: Limit) -> float:
    """Return the time from the last refusal that came after an accepted call to the end of the last pause."""
    return max(0.0, limit.cut_ms - limit.began_ms) / 1000 if limit.rate else 0.0


def _hold(limit: Limit, *, is_same: bool) -> float:
    """Return how long the climb takes: longer than the window of the quota, as far as the waits show it."""
    hold = (
        min(_MAX_HOLD_SECONDS, limit.hold_seconds * 2) if is_same else max(_FIRST_HOLD_SECONDS, limit.hold_seconds / 2)
    )
    waited = _waited_seconds(limit)
    return max(hold, min(waited * 2, _FORGET_SECONDS)) if waited > _LONG_WAIT_SECONDS else hold


def _accepted_since_cut(limit: Limit, accepted: int, now_ms: float) -> int:
    """Return the calls accepted since the pause, at most as many as began since; the rest was under way at the cut."""
    seconds = max(0.0, now_ms - limit.cut_ms) / 1000
    return min(accepted - limit.accepted_at_cut, math.floor(limit.rate * seconds))


def _ceiling(limit: Limit, refusal: LoadRefusal, now_ms: float) -> float:
    """Return the rate that the API refuses, as far as this refusal shows it; 0: unknown."""
    measured = refusal.accepted_per_second
    if limit.rate == 0:
        return measured
    waited = _waited_seconds(limit)
    if waited > _LONG_WAIT_SECONDS:
        # Once calls went on for longer than the wait took, the quota's window no longer covers the time before it.
        went_on = (now_ms - limit.cut_ms) / 1000
        accepted = refusal.accepted - limit.accepted_at_cut
        return max(LOWEST_RATE, min(limit.rate, accepted / (went_on if went_on > waited else went_on + waited)))
    if limit.rate < limit.target:
        return min(limit.ceiling, max(measured, limit.ceiling * _LOWEST_SHARE))
    return min(limit.rate, max(measured, limit.rate * _LOWEST_SHARE))


def _pause(refusals: int, retry_after: float | None, max_pause: float) -> float:
    own = min(max_pause, _MAX_PAUSE_SECONDS, _FIRST_PAUSE_SECONDS * 2.0 ** min(refusals - 1, 20))
    if retry_after is None:
        return own
    return max(retry_after, own if refusals > 1 or retry_after < _FIRST_PAUSE_SECONDS else 0.0)


def raised(limit: Limit, *, now_ms: float, accepted: int, accepted_per_second: float) -> Limit | None:
    """Return the limit after the API went on accepting calls for a while; None: unchanged."""
    since_change = (now_ms - limit.changed_ms) / 1000
    if limit.rate == 0 or 0 <= since_change < STEP_SECONDS:
        return None
    if since_change < -_LIFTED_SECONDS:  # the pause was lifted early, or the server's clock was set back
        return replace(limit, cut_ms=round(now_ms), changed_ms=round(now_ms))
    if since_change < 0 or accepted <= limit.accepted_at_cut:
        return None
    since_cut = (now_ms - limit.cut_ms) / 1000
    if limit.target == 0 or limit.rate < limit.target:
        rate = limit.rate * 2 if limit.target == 0 else min(limit.target, limit.rate * 2)
        is_used = accepted_per_second >= _USED_SHARE * limit.rate - 1
    else:
        rate = _climbed(limit, since_cut)
        is_used = accepted_per_second >= _USED_SHARE * limit.rate
    if not is_used:
        is_over = since_cut > _FORGET_SECONDS or (limit.ceiling > 0 and limit.rate > _FORGET_TIMES * limit.ceiling)
        return replace(NO_LIMIT, changed_ms=round(now_ms)) if is_over else None
    return replace(limit, rate=rate, changed_ms=round(now_ms)) if rate > limit.rate else None


def _climbed(limit: Limit, since_cut: float) -> float:
    if since_cut < limit.hold_seconds:
        return max(limit.rate, limit.target + (limit.ceiling - limit.target) * since_cut / limit.hold_seconds)
    doubles = limit.hold_seconds * _RAISE_DOUBLES_SHARE
    doublings = min(20.0, (since_cut - limit.hold_seconds) / doubles)
    return limit.rate * (1 + min(_MAX_RAISE, _FIRST_RAISE * 2**doublings))


def describe(limit: Limit) -> dict[str, Any]:
    """Return the limit as fields of a log line."""
    return {
        "calls_per_second": round(limit.rate, 3),
        "by": limit.by,
        "status": limit.status,
        "refusals": limit.refusals,
    }
