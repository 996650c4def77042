"""On a narrow terminal no line is broken in the middle of a word or an id; other output has each line in one piece."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest

from tests.cli.in_redis import dead_letter, put_record
from tests.cli.steered import register_obedient
from worker.broker.keys import Keys
from worker.message.selector import Selector

if TYPE_CHECKING:
    import redis

    from tests.cli.terminal import Terminal

JOB_ID = "3f0d2f9c-5d5e-4f47-9a52-6a2f9f7c1b11"
WORKER = "a-worker-with-a-long-name-12345-0123456789abcdef"
WHY = ("--reason", "it locks many more conversations than anybody meant it to lock")


@pytest.fixture
def full_of_everything(terminal: Terminal, redis_client: redis.Redis) -> None:
    register_obedient(redis_client, WORKER)
    dead_letter(redis_client, JOB_ID, "exhausted")
    redis_client.zadd(Keys("moderation.lock").held, {f"{Selector(rule='r-7').digest}:{put_record(redis_client)}": 0})
    for command in (["hold", "--rule", "r-7"], ["pause"]):
        terminal.run(*command, *WHY, LOCK_WORKER_ACTOR="an-operator-with-a-long-name")


@pytest.mark.usefixtures("full_of_everything")
@pytest.mark.parametrize(
    ("command", "word"),
    [
        (("status",), "conversations"), (("workers",), WORKER), (("audit",), "record"), (("holds",), "2"),
        (("dead",), JOB_ID), (("show", "job-1"), "conversations"), (("show", JOB_ID), JOB_ID),
    ],
    ids=lambda value: value[0] if isinstance(value, tuple) else "",
)  # fmt: skip
def test_lines_are_folded_at_blanks_on_a_terminal(terminal: Terminal, command: tuple[str, ...], word: str) -> None:
    _, shown = terminal.run_on_a_terminal(*command, columns=80)

    lines = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", shown).splitlines()
    assert max(map(len, lines)) <= 80
    assert word in shown


@pytest.mark.usefixtures("full_of_everything")
def test_other_output_has_each_line_in_one_piece(terminal: Terminal) -> None:
    (dead,) = (line for line in terminal.run("dead").stdout.splitlines() if JOB_ID in line)

    assert dead.endswith(f"exhausted  server_error c-1 (1 call) {JOB_ID} It failed.")
