"""Our user in the server's access control list: what it needs, and that nothing is half done where it lacks that."""

from __future__ import annotations

import re
from contextlib import asynccontextmanager
from importlib.resources import files
from typing import TYPE_CHECKING
from urllib.parse import quote

import pytest
from redis import Redis
from redis.exceptions import NoPermissionError, ResponseError

from tests.broker.every_move import MOVES, keys_of, script_of, set_scene
from tests.broker.workbench import Workbench, link_to
from worker.broker import scripts

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from contextlib import AbstractAsyncContextManager

    As = Callable[..., AbstractAsyncContextManager[Workbench]]

#: What the moves need, no more and no less (the transport and the health checks need commands of their own).
KEYS = (
    "~moderation.lock", "~moderation.lock\x06\x16*", "~lw:1:moderation.lock:*",
    "~moderation.results", "~moderation.dead", "~lw:1:moderation.results:*", "~lw:1:moderation.dead:*",
    "~unacked", "~unacked_index", "~moderation.control",
)  # fmt: skip
#: The scripts that read no job's record.
WITHOUT_RECORDS = {
    "claim", "throttle", "register", "replay", "discard", "adopt", "lost_takes", "sample", "control", "cancel",
    "note_layout",
}  # fmt: skip
CHANNELS = ("&moderation.results",)
COMMANDS = (
    "+eval", "+evalsha", "+time", "+type", "+exists", "+pttl", "+get", "+mget", "+set", "+del",
    "+hget", "+hmget", "+hgetall", "+hset", "+hincrby", "+hdel", "+hexists", "+hlen",
    "+lpop", "+rpop", "+lpush", "+rpush", "+lpos", "+lrem", "+llen", "+lindex", "+ltrim",
    "+zadd", "+zrange", "+zrem", "+pexpire", "+xadd", "+xdel", "+xlen", "+xtrim", "+xrevrange",
    "+xinfo|groups", "+memory|usage", "+publish",
)  # fmt: skip


@pytest.fixture
def logged_in(bench: Workbench, redis_url: str) -> As:
    """The same queue as seen by a user with exactly these rules."""

    @asynccontextmanager
    async def log_in(*broker_options: str) -> AsyncIterator[Workbench]:
        name, password = "lock-worker", "a password"
        bench.run("ACL", "SETUSER", name, "reset", "on", f">{password}", *broker_options)
        url = redis_url.replace("://", f"://{name}:{quote(password)}@")
        link = link_to(url, timeout_seconds=5)
        try:
            with Redis.from_url(url, protocol=2) as client:
                user = Workbench(client, link)
                user._tokens = bench._tokens
                yield user
        finally:
            await link.disconnect()
            bench.run("ACL", "DELUSER", name)

    return log_in


def commands_in(name: str) -> set[str]:
    """The commands that stand in the script of a move, and in those functions of the prelude that it uses."""
    folder = files(scripts.__package__) / "lua"
    text = (folder / f"{script_of(name)}.lua").read_text("utf-8")
    for function, body in re.findall(
        r"^local function (\w+)(.*?)^end$", (folder / "prelude.lua").read_text("utf-8"), re.DOTALL | re.MULTILINE
    ):
        text += body if f"{function}(" in text else ""
    found = re.findall(r"(?:redis\.p?call\(|LPOP' or )'([A-Z]+)'(?:, '(USAGE|GROUPS)')?", text)
    return {f"{command}|{part}".strip("|").lower() for command, part in found}


@pytest.mark.parametrize("name", MOVES)
async def test_the_listed_permissions_are_enough(bench: Workbench, logged_in: As, name: str) -> None:
    scene = await set_scene(bench, name)
    before = bench.snapshot()
    bench.run("SCRIPT", "FLUSH")

    async with logged_in(*KEYS, *CHANNELS, *COMMANDS) as user:
        await MOVES[name](user, scene)

    assert bench.snapshot() != before


def test_no_permission_is_listed_that_no_script_needs() -> None:
    needed = {command for name in MOVES for command in commands_in(name)}

    assert {f"+{command}" for command in needed} | {"+eval", "+evalsha"} == set(COMMANDS)


@pytest.mark.parametrize("name", MOVES)
async def test_without_one_of_its_commands_a_move_says_so_and_changes_nothing(
    bench: Workbench, logged_in: As, name: str
) -> None:
    scene = await set_scene(bench, name)
    before = bench.snapshot()

    for command in sorted(commands_in(name)):
        async with logged_in(*KEYS, *CHANNELS, *COMMANDS, f"-{command}") as user:
            with pytest.raises(ResponseError) as refused:
                await MOVES[name](user, scene)
        if command not in {"time", "type"}:  # the server's own refusal, which need not name the command
            assert f"may not run {command.upper().replace('|', ' ')} on " in str(refused.value)
        assert bench.snapshot() == before, f"without {command}"


@pytest.mark.parametrize("name", [name for name in MOVES if script_of(name) not in {"claim", "restore_attempts"}])
async def test_without_one_of_its_keys_a_move_is_refused_and_changes_nothing(
    bench: Workbench, logged_in: As, name: str
) -> None:
    """The server itself refuses, before the script runs, and its words name no key."""
    scene = await set_scene(bench, name)
    before = bench.snapshot()
    keys = await keys_of(name)
    assert keys

    for missing in keys:
        others = [f"~{key}" for key in keys if key != missing]
        records = [f"~{bench.keys.record_prefix}*", f"~{bench.keys.id_prefix}*"]
        async with logged_in(*others, *records, *CHANNELS, *COMMANDS) as user:
            with pytest.raises(NoPermissionError):
                await MOVES[name](user, scene)
        assert bench.snapshot() == before, f"without {missing!r}"


@pytest.mark.parametrize(
    ("name", "prefix"),
    [(name, "job:") for name in MOVES if script_of(name) not in WITHOUT_RECORDS]
    + [("claim", "ids:"), ("complete", "ids:"), ("cancel", "cancelled:"), ("count_rules", "rules:")],
)
async def test_without_the_keys_it_makes_up_itself_a_move_names_them_and_changes_nothing(
    bench: Workbench, logged_in: As, name: str, prefix: str
) -> None:
    scene = await set_scene(bench, name)
    before = bench.snapshot()
    missing = f"lw:1:moderation.lock:{prefix}"
    prefixes = {bench.keys.record_prefix, bench.keys.id_prefix, bench.keys.cancelled_prefix, bench.keys.rules_prefix}
    rest = prefixes - {missing}
    keys = [f"~{key}" for key in await keys_of(name)] + [f"~{other}*" for other in rest]

    async with logged_in(*keys, *CHANNELS, *COMMANDS) as user:
        with pytest.raises(NoPermissionError) as refused:
            await MOVES[name](user, scene)

    assert f'"{missing}"' in str(refused.value)
    assert bench.snapshot() == before


async def test_without_the_channel_a_completion_names_it_and_changes_nothing(bench: Workbench, logged_in: As) -> None:
    """What a new user of Redis 7 lacks unless it is given, even with all keys and all commands."""
    scene = await set_scene(bench, "complete")
    before = bench.snapshot()

    async with logged_in("~*", "+@all") as user:
        with pytest.raises(NoPermissionError) as refused:
            await MOVES["complete"](user, scene)

    assert 'PUBLISH on "moderation.results"' in str(refused.value)
    assert bench.snapshot() == before
