"""report_breakers: which workers have an open breaker, for people to read."""

from __future__ import annotations

from typing import TYPE_CHECKING

from worker.broker.move_limits import BREAKER_REPORT_MS

if TYPE_CHECKING:
    from tests.broker.workbench import Workbench


def reports(bench: Workbench) -> dict[bytes, bytes]:
    """What each worker told, without the time."""
    return {worker: told.partition(b" ")[2] for worker, told in bench.client.hgetall(bench.keys.breakers).items()}


async def test_a_worker_tells_of_its_open_breaker_and_when(bench: Workbench) -> None:
    before = bench.now_ms()

    await bench.fleet.report_breakers("worker-1", "api_down for 3 s: no connection")

    told = bench.run("HGET", bench.keys.breakers, "worker-1")
    at_ms, _, words = told.partition(b" ")
    assert before <= int(at_ms) <= bench.now_ms()
    assert words == b"api_down for 3 s: no connection"
    assert 0 < bench.run("PTTL", bench.keys.breakers) <= BREAKER_REPORT_MS


async def test_each_worker_has_one_vote_and_its_last_one_counts(bench: Workbench) -> None:
    await bench.fleet.report_breakers("worker-1", "api_down")
    await bench.fleet.report_breakers("worker-2", "api_down")

    await bench.fleet.report_breakers("worker-1", "token_refused")

    assert reports(bench) == {b"worker-1": b"token_refused", b"worker-2": b"api_down"}


async def test_a_vote_that_is_taken_back_is_gone_and_the_others_stay(bench: Workbench) -> None:
    await bench.fleet.report_breakers("worker-1", "api_down")
    await bench.fleet.report_breakers("worker-2", "api_down")

    await bench.fleet.report_breakers("worker-1", "")
    assert reports(bench) == {b"worker-2": b"api_down"}

    await bench.fleet.report_breakers("worker-2", "")
    assert bench.snapshot() == {}


async def test_reports_that_nobody_renewed_go_with_the_next_one(bench: Workbench) -> None:
    """Those of dead workers; and those from before the server's clock was set back."""
    now = bench.now_ms()
    bench.run(
        "HSET", bench.keys.breakers, "dead", f"{now - BREAKER_REPORT_MS - 1} api_down",
        "of tomorrow", f"{now + BREAKER_REPORT_MS * 2} x",
        "nonsense", "a word", "too long", "9" * 5000, "recent", f"{now - 1000} api_down",
    )  # fmt: skip

    await bench.fleet.report_breakers("worker-1", "api_down")

    assert reports(bench) == {b"recent": b"api_down", b"worker-1": b"api_down"}


async def test_a_hash_that_somebody_left_for_ever_gets_an_end(bench: Workbench) -> None:
    bench.run("HSET", bench.keys.breakers, "recent", f"{bench.now_ms()} api_down")

    await bench.fleet.report_breakers("worker-1", "")

    assert 0 < bench.run("PTTL", bench.keys.breakers) <= BREAKER_REPORT_MS
    assert reports(bench) == {b"recent": b"api_down"}


async def test_all_queues_of_a_fleet_vote_in_one_place(bench: Workbench) -> None:
    await bench.beside("another queue").fleet.report_breakers("worker-1", "api_down")

    assert bench.run("KEYS", "*") == [bench.keys.breakers.encode()]
