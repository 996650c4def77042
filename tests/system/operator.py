"""What operators do to the fleet of a stage: holds, and cancelled job ids."""

from __future__ import annotations

from typing import TYPE_CHECKING

from worker.broker.control_moves import Trail, cancel_command, control_command
from worker.broker.keys import digest
from worker.message.controls import Control, Note
from worker.message.selector import Selector

if TYPE_CHECKING:
    from tests.system.stage import Stage
    from worker.broker.control_moves import Action

#: Holds all jobs.
HOLD = Control("hold", Selector(), Note("an operator", "a reason"))
_TRAIL = Trail("moderation.control", 1000)
_DAY_MS = 86_400_000


def hold_all(stage: Stage) -> None:
    """Hold all jobs."""
    _control(stage, "set")


def release_all(stage: Stage) -> None:
    """Let them go on."""
    _control(stage, "remove")


def cancel(stage: Stage, *jobs: str) -> None:
    """Cancel jobs by their ids."""
    note = Note("an operator", "a reason").to_json()
    digests = [digest(job) for job in jobs]
    stage.redis.execute_command(
        *cancel_command(stage.keys, _TRAIL, digests, text=note, ttl_ms=_DAY_MS, event="{}", whole_text=True)
    )


def _control(stage: Stage, action: Action) -> None:
    command = control_command(stage.keys, _TRAIL, action, "{}", field=HOLD.field, text=HOLD.to_json(), whole_text=True)
    stage.redis.execute_command(*command)
