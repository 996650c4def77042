"""What a job costs Redis, in counts that no machine changes: commands, round trips, bytes.

Times are measured by ``make bench``; these bounds only see to it that nobody makes a job dearer by accident.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from worker.broker.keys import digest
from worker.broker.records import Claim

if TYPE_CHECKING:
    from tests.broker.workbench import Workbench

BATCH = 100
MESSAGE = b"m" * 700
EVENT = b"e" * 1500
#: What the workbench itself sends: the INFO that counts.
OWN_COMMANDS = 1


class Meter:
    """The server's own totals since it was made."""

    def __init__(self, bench: Workbench) -> None:
        self._bench = bench
        self._before = self._read()

    def _read(self) -> dict[str, int]:
        info: Any = self._bench.client.info("all")
        calls = {name: stats["calls"] for name, stats in info.items() if name.startswith("cmdstat_")}
        scripts = sum(count for name, count in calls.items() if name in {"cmdstat_evalsha", "cmdstat_eval"})
        return {
            "commands": sum(calls.values()),
            "scripts": scripts,
            "bytes": info["total_net_input_bytes"] + info["total_net_output_bytes"],
        }

    def read(self, name: str) -> int:
        """How much more it is than at the beginning."""
        return self._read()[name] - self._before[name]


async def a_life(bench: Workbench, jobs: int) -> None:
    """Jobs from the list to the stream, in as many calls as a worker needs that has them in flight at once."""
    taken = bench.take(jobs).jobs
    assert len(taken) == jobs
    ids = [f"job-{number}" for number in range(jobs)]
    await bench.moves.claim([Claim(digest(name), digest("a conversation")) for name in ids])
    ends = [bench.completion(job, event=EVENT, job_id=name) for job, name in zip(taken, ids, strict=True)]
    await bench.moves.complete(ends)


@pytest.fixture
async def warm(bench: Workbench) -> Workbench:
    """A queue whose scripts the server knows, with a batch of jobs waiting."""
    bench.push(MESSAGE)
    await a_life(bench, 1)
    bench.run("DEL", bench.keys.id_prefix + digest("job-0"))
    bench.push(*[MESSAGE] * BATCH)
    return bench


async def test_a_batch_of_jobs_costs_three_round_trips(warm: Workbench) -> None:
    meter = Meter(warm)

    await a_life(warm, BATCH)

    assert meter.read("scripts") == 3


async def test_a_job_of_a_batch_costs_less_than_ten_commands_inside_the_scripts(warm: Workbench) -> None:
    meter = Meter(warm)

    await a_life(warm, BATCH)

    assert (meter.read("commands") - OWN_COMMANDS) / BATCH < 10


async def test_a_jobs_bytes_travel_once_each_way(warm: Workbench) -> None:
    meter = Meter(warm)

    await a_life(warm, BATCH)

    # The message comes in one answer and the event goes in one call; names, tokens and framing come on top.
    assert meter.read("bytes") / BATCH < len(MESSAGE) + len(EVENT) + 500


async def test_a_job_that_comes_alone_costs_three_round_trips_and_less_than_forty_commands(warm: Workbench) -> None:
    meter = Meter(warm)

    await a_life(warm, 1)

    assert meter.read("scripts") == 3
    assert meter.read("commands") - OWN_COMMANDS < 40
