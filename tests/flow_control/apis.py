"""APIs to live with: each says how a call that begins now will end. They know jobs by name; ``bad...`` ones fail."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from random import Random
from typing import TYPE_CHECKING, Literal, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Callable

CALL_SECONDS = 0.05
TIMEOUT_SECONDS = 10.0


@dataclass(frozen=True, slots=True)
class Reply:
    """How a call ends, and after how many seconds; without a status it failed."""

    seconds: float = CALL_SECONDS
    status: int | None = 200
    retry_after: str | None = None
    failure: Literal["timeout", "refused"] = "timeout"


@dataclass(frozen=True, slots=True)
class Call:
    """A call as the API sees it."""

    at: float
    job: str
    pod: int
    token: str = "good"


Api: TypeAlias = "Callable[[Call], Reply]"

WELL = Reply()
ERROR = Reply(status=500)
AT_ONCE = Reply(0.002, 500)
SLOWLY = Reply(2.0, 500)
HANGS = Reply(TIMEOUT_SECONDS, None)
NO_CONNECTION = Reply(0.001, None, failure="refused")
UNAUTHORIZED = Reply(status=401)


def well(_: Call) -> Reply:
    """All is well."""
    return WELL


def bad_jobs(failing: Reply = ERROR, beside: Api = well) -> Api:
    """Jobs whose names begin with ``bad`` fail; the others fare as they do beside."""
    return lambda call: failing if call.job.startswith("bad") else beside(call)


def down(since: float, until: float, how: Reply = ERROR, beside: Api = well) -> Api:
    """An outage."""
    return lambda call: how if since <= call.at < until else beside(call)


def flapping(down_for: float, up_for: float) -> Api:
    """Down and up by turns."""
    return lambda call: ERROR if call.at % (down_for + up_for) < down_for else WELL


def brown_out(since: float, until: float, *, share: float = 0.5, seconds: float = 3.0, seed: int = 7) -> Api:
    """Slow, and a share of the calls fails, whatever the job."""
    chance = Random(seed)

    def answer(call: Call) -> Reply:
        if not since <= call.at < until:
            return WELL
        return Reply(seconds, 500 if chance.random() < share else 200)

    return answer


class Quota:
    """An API that takes so many calls in a time, and refuses the others.

    Args:
        calls: how many.
        seconds: in how many seconds.
        kind: ``fixed`` (windows on the clock), ``sliding``, or ``bucket`` (filled steadily, and holding so many).
        retry_after: says what the header says, from the seconds until there is room; None: no header.
        beside: how calls fare that there is room for.
        status: of a refusal.
    """

    def __init__(
        self,
        calls: float,
        seconds: float = 1.0,
        *,
        kind: str = "fixed",
        retry_after: Callable[[float], str] | None = None,
        beside: Api = well,
        status: int = 429,
    ) -> None:
        self._calls = calls
        self.seconds = seconds
        self._kind = kind
        self._retry_after = retry_after
        self._beside = beside
        self._status = status
        self._taken: deque[float] = deque()
        self._window = -1
        self._used = 0.0
        self._filled_at = 0.0

    def __call__(self, call: Call) -> Reply:
        """Answer a call."""
        wait = getattr(self, f"_{self._kind}")(call.at)
        if wait <= 0:
            return self._beside(call)
        header = None if self._retry_after is None else self._retry_after(wait)
        return Reply(0.005, self._status, header)

    def _fixed(self, now: float) -> float:
        window = int(now // self.seconds)
        if window != self._window:
            self._window, self._used = window, 0
        if self._used < self._calls:
            self._used += 1
            return 0
        return (window + 1) * self.seconds - now

    def _sliding(self, now: float) -> float:
        while self._taken and self._taken[0] <= now - self.seconds:
            self._taken.popleft()
        if len(self._taken) < self._calls:
            self._taken.append(now)
            return 0
        return self._taken[0] + self.seconds - now

    def _bucket(self, now: float) -> float:
        rate = self._calls / self.seconds
        self._used = max(0.0, self._used - (now - self._filled_at) * rate)
        self._filled_at = now
        if self._used + 1 <= self._calls:
            self._used += 1
            return 0
        return (self._used + 1 - self._calls) / rate


def whole_seconds(wait: float) -> str:
    """A ``Retry-After`` as most APIs write it: the seconds until there is room, rounded up."""
    return str(int(wait) + 1)


def always(text: str) -> Callable[[float], str]:
    """A ``Retry-After`` that says the same whatever the wait."""
    return lambda _: text


def limited_job(job: str, beside: Api = well) -> Api:
    """One job always gets 429, whatever the load."""
    return lambda call: Reply(0.01, 429) if call.job == job else beside(call)


def forbidden_path(job: str, beside: Api = well) -> Api:
    """One job always gets 401, with any token."""
    return lambda call: UNAUTHORIZED if call.job.startswith(job) else beside(call)


def revoked(since: float, until: float, beside: Api = well) -> Api:
    """Every token is refused for a time."""
    return lambda call: UNAUTHORIZED if since <= call.at < until else beside(call)


def only_token(good: str, beside: Api = well) -> Api:
    """One token is accepted."""
    return lambda call: beside(call) if call.token == good else UNAUTHORIZED
