"""Prints the summary of the demo: how every message ended, what does not add up, and what to do next."""

from __future__ import annotations

import shutil
import sys
from collections import Counter
from typing import TYPE_CHECKING

from rich.table import Table
from rich.text import Text

from worker.cli.demo.kinds import DROPPED
from worker.cli.demo.reconciliation import ends_text

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rich.console import Console

    from sandbox.call_log import Call
    from worker.cli.demo.reconciliation import Reconciliation
    from worker.runtime.fleet_state import FleetState

_TERMS_A_LINE = 4
#: Wide enough for the outcomes of most kinds.
_LEAST_END = 14


def summarize(console: Console, reconciliation: Reconciliation, state: FleetState, calls: Sequence[Call]) -> list[str]:
    """Print how every message ended, and return what does not add up."""
    dropped = state.queue.totals.get("deduplicated", 0)
    table = Table.grid(padding=(0, 3, 0, 0))
    table.add_column()  # without room for all, names are folded and numbers kept whole
    table.add_column(justify="right", no_wrap=True)
    table.add_column(min_width=_LEAST_END)
    table.add_row(Text("sent", style="dim"), "", Text("ended", style="dim"))
    for kind, sent, came in reconciliation.rows(dropped):
        is_right = dict(came) == {kind.end: sent}
        table.add_row(
            kind.name, f"{sent:,}", Text(ends_text(came) or "not at all", style="" if is_right else "bold red")
        )
    console.print(table)

    ends = Counter(reconciliation.outcomes)
    ends[DROPPED] = dropped
    terms = [f"{count:,} {end}" for end, count in ends.most_common()]
    counted = sum(result.attempts for result in reconciliation.results)
    sign = "=" if ends.total() == len(reconciliation.sent) else "is not"
    console.print(f"\n{len(reconciliation.sent):,} sent {sign} {' + '.join(terms[:_TERMS_A_LINE])}")
    if terms[_TERMS_A_LINE:]:
        console.print(f"  + {' + '.join(terms[_TERMS_A_LINE:])}")
    jobs = len(reconciliation.sent) - dropped
    console.print(
        f"{jobs:,} jobs, {len(reconciliation.results):,} events; {state.dead.length:,} of them dead letters too"
    )
    refused = sum(call.answer == "429" for call in calls)
    more = "" if not refused else f", {refused:,} of them refused for load, which count for no job"
    copies = "" if counted >= len(calls) - refused else " (copies that were under way at once may call too)"
    console.print(f"{counted:,} calls told by the events, {len(calls):,} seen by the API{more}{copies}")
    return list(reconciliation.problems(state.queue, calls))


def next_steps(console: Console) -> None:
    """Print what to do next."""
    program = "lock-worker" if shutil.which("lock-worker") else sys.argv[0]
    console.print("\nNext, on your own Redis:")
    console.print("  export REDIS_URL=redis://127.0.0.1:6379/0 API_TOKEN_FILE=/path/to/token", soft_wrap=True)
    for command in ("run", "enqueue CONVERSATION_ID", "watch --from-start"):
        console.print(f"  {program} {command}", soft_wrap=True)
