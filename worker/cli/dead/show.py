"""Shows a dead letter: its event, and its message as it came from the queue."""

from __future__ import annotations

import base64
import json
import sys
from typing import TYPE_CHECKING

from worker.broker.connection import sync_client
from worker.cli.dead.summary import letter_json
from worker.cli.dead_letters import DeadLetterFilter, pages
from worker.cli.exit import fail, redis_address, redis_or_stop, report_if_interrupted
from worker.observe.printable import printable

if TYPE_CHECKING:
    from collections.abc import Iterator

    from settings import Settings
    from worker.cli.dead_letters import DeadLetter


def show_letters(settings: Settings, name: str, *, as_json: bool) -> None:
    """Show the dead letters with this job id or entry; more than one only if the id was used again."""
    count = 0
    with report_if_interrupted(lambda: "nothing was changed"), redis_or_stop(settings), sync_client(settings) as client:
        for letters in pages(client, settings.DEAD_STREAM, DeadLetterFilter(names=frozenset({name}))):
            for letter in letters:
                gap = "\n" if count and not as_json else ""
                count += 1
                sys.stdout.write(f"{gap}{_json(letter) if as_json else _text(letter)}\n")
    if not count:
        fail(f"no dead letter {printable(name)} in {settings.DEAD_STREAM} at {redis_address(settings)}")


def _json(letter: DeadLetter) -> str:
    told = {
        **letter_json(letter),
        "message": _readable(letter.message),
        "message_base64": base64.b64encode(letter.message).decode(),
    }
    return printable(json.dumps(told, ensure_ascii=False))


def _text(letter: DeadLetter) -> str:
    return "\n".join(_lines(letter))


def _lines(letter: DeadLetter) -> Iterator[str]:
    yield f"{letter.entry}  {letter.result.as_dated_line()}"
    yield f"queue: {printable(letter.queue or '(unknown)')}"
    yield ""
    yield "Event:"
    event = json.dumps(json.loads(letter.result.text), indent=2, ensure_ascii=False)
    yield from map(printable, event.split("\n"))
    yield ""
    yield f"Message ({len(letter.message):,} bytes):"
    yield printable(_readable(letter.message))


def _readable(message: bytes) -> str:
    r"""Return a message as text; bytes that are not UTF-8 as ``\xff``."""
    return message.decode("utf-8", "backslashreplace")
