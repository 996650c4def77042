"""``lock-worker doctor``: a line for each check, and what to do where one is not well."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from worker.cli.exit import FAILED

if TYPE_CHECKING:
    from collections.abc import Sequence

    from worker.cli.doctor.check import Check

_INDENT = 9


def doctor(*, as_json: Annotated[bool, typer.Option("--json", help="One JSON object, for programs.")] = False) -> None:
    """Check before a rollout whether a worker would work here.

    It checks the settings, and whether they contradict each other; Redis: version, role, persistence, memory, clock,
    permissions; the way to the API, with TLS as a worker verifies it; the settings of the workers that run, and how
    they are. It changes nothing and makes no call, so the token is not tried. The exit status is 0 if there is no
    problem, else 1.
    """
    from worker.cli.doctor.examination import examine  # noqa: PLC0415 - slow to import, and --help is quick

    found = []
    for check in examine():
        found.append(check)
        if not as_json:
            typer.echo(_shown(check))
    is_well = not any(check.level == "problem" for check in found)
    if as_json:
        typer.echo(_json(found, is_well=is_well))
    else:
        typer.echo(f"\n{_summary(found)}")
    raise typer.Exit(0 if is_well else FAILED)


def _shown(check: Check) -> str:
    """Return one line; on a terminal folded to its width."""
    from worker.cli.folding import folded  # noqa: PLC0415 - as above
    from worker.observe.printable import printable  # noqa: PLC0415 - as above

    mend = f" -> {check.mend}" if check.mend else ""
    return folded(printable(f"{check.level:<{_INDENT}}{check.name}: {check.text}{mend}"), _INDENT)


def _summary(found: Sequence[Check]) -> str:
    from tasks.plural import plural  # noqa: PLC0415 - as above

    problems, warnings = (sum(check.level == level for check in found) for level in ("problem", "warning"))
    if not problems and not warnings:
        return "All is well."
    return f"{plural(problems, 'problem')}, {plural(warnings, 'warning')}."


def _json(found: Sequence[Check], *, is_well: bool) -> str:
    import json  # noqa: PLC0415 - as above

    checks = [{"name": each.name, "level": each.level, "text": each.text, "mend": each.mend or None} for each in found]
    return json.dumps({"ok": is_well, "checks": checks})
