"""Notes that an operator knows of jobs that lost their records: from then on the audit fails for further ones only."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tasks.plural import plural
from worker.broker.keys import Keys
from worker.cli.audit.law import ACKNOWLEDGED
from worker.cli.controls.answers import by_whom
from worker.cli.controls.steering import steering
from worker.observe.printable import printable

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from settings import Settings
    from worker.cli.audit.report import Audited


def acknowledge(settings: Settings, found: Sequence[Audited], reason: str) -> Iterator[str]:
    """Note the vanished jobs of each queue that has some that nobody has seen; yield a line for each."""
    with steering(settings) as fleet:
        for each in found:
            vanished, queue = each.law.terms["vanished"], each.law.queue
            if vanished <= each.law.acknowledged:
                continue
            note = fleet.note(reason)
            event = fleet.event("acknowledged", note, vanished=vanished, of_queue=queue)
            with fleet.client.pipeline(transaction=True) as step:
                step.hset(Keys(queue).counters, ACKNOWLEDGED, vanished)
                step.xadd(settings.CONTROL_STREAM, {"event": event}, maxlen=settings.CONTROL_MAXLEN, approximate=True)
                step.execute()
            yield f"{plural(vanished, 'vanished job')} of {printable(queue)} acknowledged {by_whom(note)}"
