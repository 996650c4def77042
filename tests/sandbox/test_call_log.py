"""The call log: what it keeps of each call, its counts and its bounds."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING

from sandbox import call_log
from sandbox.api import SandboxApi
from sandbox.faults import Delay, Respond
from sandbox.script import Rule, Script
from tests.sandbox.raw_client import lock, request, send, until

if TYPE_CHECKING:
    import pytest


async def test_a_call_is_noted_with_all_that_a_test_may_want_to_check(sandbox_api: SandboxApi) -> None:
    before = time.monotonic(), time.time()
    headers = {
        "Authorization": "Bearer t",
        "Idempotency_Key": "job-1",
        "traceparent": "00-1-2-01",
        "Accept": "application/json",
        "User_Agent": "lock-worker/1",
        "Cookie": "a=b",
    }
    await send(sandbox_api, lock("a%2fb", **headers))
    await send(sandbox_api, lock("a%2Fb"))

    full, bare = sandbox_api.calls()
    assert (full.number, bare.number) == (1, 2)
    assert before < (full.at_monotonic, full.at_wall) < (bare.at_monotonic, bare.at_wall)
    assert full.method == "POST"
    assert full.target == b"/conversations/a%2fb/lock"
    assert full.conversation_id == bare.conversation_id == "a/b"
    assert (full.attempt, bare.attempt) == (1, 2)
    assert (full.authorization, bare.authorization) == ("unchecked", "absent")
    assert (full.idempotency_key, full.traceparent, full.accept) == ("job-1", "00-1-2-01", "application/json")
    assert (full.user_agent, full.cookie, full.body_size) == ("lock-worker/1", "a=b", 0)
    assert (bare.idempotency_key, bare.cookie) == (None, None)
    assert full.answer == bare.answer == "200"
    assert full.ended_monotonic is not None
    assert full.ended_monotonic >= full.at_monotonic


async def test_the_log_holds_no_token(sandbox_api: SandboxApi) -> None:
    sandbox_api.token = "open-sesame"
    await send(sandbox_api, lock("c-1", Authorization="Bearer open-sesame"))
    await send(sandbox_api, request("GET /\xff?token=no", Authorization="Bearer shut-sesame", Connection="close"))

    first, second = sandbox_api.calls()
    assert (first.conversation_id, first.authorization, first.answer) == ("c-1", "right", "200")
    assert (second.conversation_id, second.authorization, second.answer) == (None, "wrong", "404")
    assert second.target == "/\xff?token=no".encode()
    assert "sesame" not in f"{first} {second}"


async def test_the_counts_can_be_reset(sandbox_api: SandboxApi) -> None:
    for conversation_id in ("c-1", "c-1", "c-2"):
        await send(sandbox_api, lock(conversation_id))

    assert sandbox_api.stats() == {
        "calls": 3,
        "conversations": 2,
        "answers": {"200": 3},
        "in_flight": 0,
        "peak_in_flight": 1,
    }
    sandbox_api.reset()
    assert sandbox_api.stats()["calls"] == 0
    assert sandbox_api.calls() == []
    await send(sandbox_api, lock("c-1"))
    assert sandbox_api.calls()[0].attempt == 1


async def test_calls_in_flight_are_counted(sandbox_api: SandboxApi) -> None:
    sandbox_api.script = Script(rules=(Rule(then=Delay(ms=50)),))
    await asyncio.gather(*(send(sandbox_api, lock(f"c-{number}")) for number in range(5)))

    assert sandbox_api.stats()["peak_in_flight"] == 5
    await until(lambda: sandbox_api.stats()["in_flight"] == 0, "no call is in flight")


async def test_the_log_keeps_the_newest_calls_and_counts_all() -> None:
    async with SandboxApi(log_limit=2) as api:
        for number in range(5):
            await send(api, lock(f"c-{number}"))

    assert [call.conversation_id for call in api.calls()] == ["c-3", "c-4"]
    assert api.stats()["calls"] == api.stats()["conversations"] == 5


async def test_the_calls_of_a_bounded_number_of_ids_are_counted(
    sandbox_api: SandboxApi, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(call_log, "IDS_COUNTED", 2)
    for conversation_id in ("a", "b", "a", "c", "a"):
        await send(sandbox_api, lock(conversation_id))

    assert [call.attempt for call in sandbox_api.calls()] == [1, 1, 2, 1, 1]


async def test_the_script_of_a_running_server_can_be_changed(sandbox_api: SandboxApi) -> None:
    assert (await send(sandbox_api, lock("missing-1"))).data.startswith(b"HTTP/1.1 200 ")

    sandbox_api.script = Script(rules=(Rule(ids="missing*", then=Respond(status=404)),))

    assert (await send(sandbox_api, lock("missing-1"))).data.startswith(b"HTTP/1.1 404 ")
