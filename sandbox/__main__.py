"""``python -m sandbox``: the sandbox API as a program.

Prints its URL as the first line once it listens, and ends with status 0 on SIGTERM or SIGINT.
"""

from __future__ import annotations

import argparse
import asyncio
import signal
from pathlib import Path

from pydantic import ValidationError

from sandbox.api import SandboxApi
from sandbox.demo_script import DEMO_SCRIPT
from sandbox.faults import Delay
from sandbox.script import Rule, Script


def main() -> None:
    """Run the program."""
    options = _parser().parse_args()
    script: Script = options.faults
    if options.latency_ms:
        latency = Rule(then=Delay(ms=options.latency_ms))
        script = script.model_copy(update={"rules": (latency, *script.rules)})
    api = SandboxApi(script=script, token=options.token, host=options.host, port=options.port)
    asyncio.run(_serve(api))


async def _serve(api: SandboxApi) -> None:
    is_to_stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, is_to_stop.set)
    async with api:
        print(api.url, flush=True)  # noqa: T201 - the starting process reads it
        await is_to_stop.wait()


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m sandbox",
        description="A Managem API that answers POST /conversations/{id}/lock and fails as scripted. Prints its URL "
        "when ready.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on")
    parser.add_argument("--port", type=int, default=0, help="port to listen on; 0 for a free one")
    parser.add_argument("--token", help="answer 401 to every call whose bearer token is another")
    parser.add_argument("--latency-ms", type=float, default=0.0, help="wait before every answer, in milliseconds")
    parser.add_argument(
        "--faults",
        type=_script,
        default="none",
        metavar="none|demo|FILE",
        help="what fails: nothing, the ids of the demo (missing*, forbidden*, busy*, flaky*), or a script as JSON",
    )
    return parser


def _script(name: str) -> Script:
    if name == "none":
        return Script()
    if name == "demo":
        return DEMO_SCRIPT
    try:
        return Script.model_validate_json(Path(name).read_bytes())
    except (OSError, ValidationError) as error:
        raise argparse.ArgumentTypeError(f"{name} holds no script: {error}") from None


if __name__ == "__main__":
    main()
