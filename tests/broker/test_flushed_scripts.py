"""A restarted or flushed server knows no scripts: it says so before anything runs, and then gets the whole text."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import redis.exceptions

from tests.broker.every_move import MOVES, script_of, set_scene
from tests.broker.workbench import Workbench
from worker.broker.maintenance_moves import MaintenanceMoves
from worker.broker.records import TakeRequest
from worker.broker.take import take_command

if TYPE_CHECKING:
    from worker.broker.script_calls import Client


class Listening:
    """A client that notes what is sent through it."""

    def __init__(self, client: Client) -> None:
        self.client = client
        self.sent: list[str] = []

    async def execute_command(self, *command: Any) -> Any:
        self.sent.append(command[0])
        return await self.client.execute_command(*command)


class HangingUp:
    """A client whose connection is lost after each command."""

    def __init__(self) -> None:
        self.sent = 0

    async def execute_command(self, *_: Any) -> Any:
        self.sent += 1
        raise redis.exceptions.ConnectionError("hung up")


@pytest.mark.parametrize(
    "name", [name for name in MOVES if script_of(name) not in {"take", "replay", "discard", "adopt"}]
)
async def test_a_move_survives_a_flush_and_pays_for_it_once(bench: Workbench, name: str) -> None:
    scene = await set_scene(bench, name)
    client: Any = Listening(bench.async_client)
    bench = Workbench(bench.client, client)
    before = bench.snapshot()
    bench.run("SCRIPT", "FLUSH")

    await MOVES[name](bench, scene)

    assert bench.snapshot() != before
    await MOVES[name](bench, scene)
    assert client.sent == ["EVALSHA", "EVAL", "EVALSHA"]


async def test_a_take_is_refused_unchanged_by_digest_and_passes_by_its_whole_text(bench: Workbench) -> None:
    await set_scene(bench, "take")
    bench.run("SCRIPT", "FLUSH")
    before = bench.snapshot()

    def take(*, whole_text: bool = False) -> Any:
        return bench.run(
            *take_command(
                bench.keys,
                bench.broker_options,
                token="t",
                worker="w",
                request=TakeRequest(1, 1),
                whole_text=whole_text,
            )
        )

    with pytest.raises(redis.exceptions.NoScriptError):
        take()
    assert bench.snapshot() == before
    assert take(whole_text=True)[0] == b"jobs"
    assert take()[0] == b"jobs"


async def test_a_move_whose_answer_was_lost_is_not_repeated_by_itself(bench: Workbench) -> None:
    client: Any = HangingUp()

    with pytest.raises(redis.exceptions.ConnectionError):
        await MaintenanceMoves(client, bench.keys, bench.broker_options).promote(between_ms=0)

    assert client.sent == 1
