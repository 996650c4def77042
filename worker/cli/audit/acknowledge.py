"""Notes that an operator knows of jobs that lost their records: from then on the audit fails for further ones only."""

from __future__ import annotations

from typing import TYPE_CHECKING

import typer

from tasks.plural import plural
from worker.broker.keys import Keys
from worker.cli.audit.law import ACKNOWLEDGED
from worker.cli.controls.answers import by_whom
from worker.cli.controls.steering import steering
from worker.observe.printable import printable

if TYPE_CHECKING:
    from collections.abc import Sequence

    from settings import Settings
    from worker.cli.audit.report import Audited


def acknowledge(settings: Settings, found: Sequence[Audited], reason: str) -> None:
    """Note the vanished jobs of each queue that has some that nobody has seen, and say so for each."""
    acknowledged: list[str] = []
    with steering(settings, shown_by="lock-worker audit shows which vanished jobs are not acknowledged") as fleet:
        for each in found:
            vanished, queue = each.law.terms["vanished"], each.law.queue
            if vanished <= each.law.acknowledged:
                continue
            note = fleet.note(reason)
            event = fleet.event("acknowledged", note, vanished=vanished, of_queue=queue)
            fleet.send_together(
                ["HSET", Keys(queue).counters, ACKNOWLEDGED, vanished],
                ["XADD", settings.CONTROL_STREAM, "MAXLEN", "~", settings.CONTROL_MAXLEN, "*", "event", event],
            )
            acknowledged.append(f"{plural(vanished, 'vanished job')} of {printable(queue)}")
            fleet.account = f"Acknowledged: {', '.join(acknowledged)}."
            typer.echo(f"{acknowledged[-1]} acknowledged {by_whom(note)}", err=True)
