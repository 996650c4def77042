"""The table of ``docs/flow-control.md``: what the simulation makes of a list of situations.

``python -m tests.flow_control.table`` writes it between the page's markers. It is the same on every run: each situation
has its seed, and nothing in it depends on the machine.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from tests.flow_control import apis
from tests.flow_control.apis import Quota, Reply
from tests.flow_control.fleet import Settings, World

if TYPE_CHECKING:
    from collections.abc import Callable

PAGE = Path(__file__).parent.parent.parent / "docs" / "flow-control.md"
BEGIN, END = "<!-- simulated: begin -->\n", "<!-- simulated: end -->\n"
SEED = 1
_STREAM = 400


def _names(prefix: str, count: int) -> list[str]:
    return [f"{prefix}-{number}" for number in range(count)]


def _beside_bad(failing: Reply, bad: int, pods: int) -> list[str]:
    world = World(apis.bad_jobs(failing), pods=pods, seed=SEED)
    world.send(*_names("bad", bad))
    world.stream(_names("good", _STREAM), every=0.25)
    world.run(1500)
    good = sorted(story.ended_at - story.arrived_at for story in world.stories("good"))
    ended = world.last_end("bad")
    return [
        f"{100 * world.finished('good', until=100) / _STREAM:.0f} % of 4/s",
        f"{good[len(good) // 2]:.2f} s, {good[int(len(good) * 0.9)]:.2f} s, {good[-1]:.1f} s",
        f"all exhausted after {ended:.0f} s, {max(story.calls for story in world.stories('bad'))} calls at most",
    ]


def _outage(how: Reply, pods: int) -> list[str]:
    begins, ends = 3.0, 63.0
    world = World(apis.down(begins, ends, how), pods=pods, seed=SEED)
    world.send(*_names("good", 3000 * pods if pods < 10 else 22_000))
    world.run(ends + 120)
    first = min(call.at for call in world.calls if call.at >= ends and call.status == 200)
    settled = begins + apis.TIMEOUT_SECONDS + 5
    by_degrees = ", ".join(str(len(world.calls_in(first + second, first + second + 1))) for second in range(4))
    return [
        f"{len(world.calls_in(settled, ends)) / (ends - settled):.1f}, {world.most_calls_in_a_second(settled, ends)}",
        f"{world.attempts_lost()}",
        f"{first - ends:.1f} s",
        by_degrees,
    ]


def _quota(quota: Quota, jobs: int, per_second: float, pods: int) -> list[str]:
    world = World(quota, pods=pods, settings=Settings(concurrency=100), seed=SEED)
    world.send(*_names("good", jobs))
    world.run(3000)
    # Whole windows of the quota, or a part of one would count as more or less than it is.
    since, until = (moment // quota.seconds * quota.seconds for moment in (world.now / 2, world.now))
    late = world.finished("good", since=since, until=until) / (until - since) / per_second
    by_pod = [sum(call.pod == pod for call in world.calls) for pod in range(pods)]
    return [
        f"{100 * late:.0f} %",
        f"{100 * world.refused_share():.1f} %",
        f"{world.outcomes().get('locked', 0)} of {jobs}",
        f"{min(by_pod)} to {max(by_pod)}",
    ]


def _table(head: list[str], rows: list[tuple[str, Callable[[], list[str]]]]) -> str:
    lines = [head, ["---"] * len(head), *([name, *measured()] for name, measured in rows)]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def table() -> str:
    """All situations, as Markdown."""
    fails = (("at once", apis.AT_ONCE), ("in 50 ms", apis.ERROR), ("in 2 s", apis.SLOWLY))
    downs = (("500", apis.ERROR), ("hangs until the timeout", apis.HANGS), ("refuses connections", apis.NO_CONNECTION))
    bad = _table(
        [
            "Bad jobs in front of good ones that come at 4 a second",
            "Good ones done in time",
            "Wait of good ones: half, nine tenths, longest",
            "Bad ones",
        ],
        [
            (f"{count} that fail {word}, pods: {pods}", lambda f=failing, c=count, p=pods: _beside_bad(f, c, p))  # type: ignore[misc]
            for word, failing in fails
            for count, pods in ((25, 1), (300, 1), (300, 4))
        ],
    )
    outages = _table(
        [
            "API down for a minute, under full load",
            "Calls a second of the fleet: mean, most",
            "Attempts lost",
            "First answer after its end",
            "Calls in each second from then on",
        ],
        [
            (f"{word}, pods: {pods}", lambda h=how, p=pods: _outage(h, p))  # type: ignore[misc]
            for word, how in downs
            for pods in ((1, 4, 20) if how is apis.ERROR else (1, 4))
        ],
    )
    quotas = _table(
        ["Quota", "Used, in the second half of the time", "Calls refused", "Locked", "Calls of each pod"],
        [
            (
                "20 a second, `Retry-After: 1`, pods: 1",
                lambda: _quota(Quota(20, retry_after=apis.always("1")), 2500, 20, 1),
            ),
            ("20 a second, no header, pods: 4", lambda: _quota(Quota(20), 2500, 20, 4)),
            ("20 in any second, no header, pods: 20", lambda: _quota(Quota(20, kind="sliding"), 2500, 20, 20)),
            ("100 a second, token bucket, pods: 4", lambda: _quota(Quota(100, kind="bucket"), 9000, 100, 4)),
            ("60 a minute, no header, pods: 1", lambda: _quota(Quota(60, 60), 1200, 1, 1)),
            (
                "60 a minute, `Retry-After`, pods: 4",
                lambda: _quota(Quota(60, 60, retry_after=apis.whole_seconds), 1200, 1, 4),
            ),
        ],
    )
    return f"\n{bad}\n{outages}\n{quotas}\n"


def page_with(made: str) -> str:
    """The page with this table in it."""
    text = PAGE.read_text("utf-8")
    begin, end = text.index(BEGIN) + len(BEGIN), text.index(END)
    return text[:begin] + made + text[end:]


if __name__ == "__main__":
    PAGE.write_text(page_with(table()), encoding="utf-8")
