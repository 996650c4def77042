"""``lock-worker ping``: asks this pod's worker whether it is alive or ready, and ends with 0 or 1."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Annotated, Any

import typer

from worker.cli.exit import FAILED, fail
from worker.cli.ping.health_port import PingError, health_port
from worker.cli.ping.health_port import ask as ask_health_port
from worker.observe.printable import printable

if TYPE_CHECKING:
    from worker.cli.ping.health_port import Answer

_REASONS = ("reasons", "held_back_by")


def ping(
    *,
    ready: Annotated[bool, typer.Option("--ready", help="Ask /readyz: whether it can take jobs.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object, for programs.")] = False,
) -> None:
    """Ask the worker of this pod whether it is alive.

    It is for the health checks of containers, and needs no curl and no token. It asks the health port at HEALTH_HOST
    and HEALTH_PORT (a wildcard address means loopback) for /livez. With HEALTH_PORT=0 it sends Redis a PING instead,
    and says nothing of the worker. The exit status is 0 if all is well, and 1 if not, for whatever reason, wrong
    settings included.
    """
    try:
        answer = _ask("/readyz" if ready else "/livez")
    except PingError as error:
        if as_json:
            typer.echo(json.dumps({"ok": False, "asked": None, "status": None, "reasons": [], "problem": str(error)}))
            raise typer.Exit(FAILED) from None
        fail(str(error))
    reasons = _reasons(answer)
    problem = None if answer.is_good else f"{answer.asked} answers {answer.status}{_because(reasons)}"
    if as_json:
        found = {"ok": answer.is_good, "asked": answer.asked, "status": answer.status, "reasons": reasons}
        typer.echo(json.dumps({**found, "problem": problem}))
    elif problem is None:
        typer.echo(printable(f"ok: {answer.asked}{_because(reasons)}"))
    else:
        fail(problem)
    raise typer.Exit(0 if answer.is_good else FAILED)


def _ask(path: str) -> Answer:
    port = health_port()
    if port:
        return ask_health_port(port, path)
    from worker.cli.ping import redis_server  # noqa: PLC0415 - slow to import, and the health port needs none of it

    return redis_server.ask()


def _reasons(answer: Answer) -> list[str]:
    """Return why the worker is not ready, or what holds its fleet back; nothing if something else answered."""
    try:
        body: Any = json.loads(answer.body or b"{}")
    except (ValueError, RecursionError):
        return []
    if not isinstance(body, dict):
        return []
    lists = [body.get(name) for name in _REASONS]
    return [str(reason) for found in lists if isinstance(found, list) for reason in found]


def _because(reasons: list[str]) -> str:
    return f" ({', '.join(reasons)})" if reasons else ""
