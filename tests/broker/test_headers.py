"""The header of each Lua file is what a stranger trusts: it is held against the file and the function that calls it."""

from __future__ import annotations

import ast
import re
from collections import Counter
from dataclasses import dataclass
from importlib.resources import files

import pytest

from tests.broker.every_move import MOVES, READS, command_of
from worker.broker import scripts
from worker.broker.scripts import Script

TEXTS = {
    file.name.removesuffix(".lua"): file.read_text("utf-8")
    for file in (files(scripts.__package__) / "lua").iterdir()
    if file.name.endswith(".lua")
}
PRELUDE = TEXTS.pop("prelude")
#: The constants of scripts.py, by name.
LOADED = {name: value for name, value in vars(scripts).items() if isinstance(value, Script)}
PARTS = ("KEYS", "ARGV", "Returns", "Crash")


@dataclass(frozen=True, slots=True)
class Inputs:
    """What a header says of KEYS or ARGV: how many, and how many more for each job or list."""

    fixed: int
    repeated: int


def part(text: str, name: str) -> str:
    """One part of a header, in one line; three blanks where a line ended."""
    header = text[: text.index("\n\n")]
    found = re.search(rf"^-- {name}:? (.*?)(?=^-- (?:{'|'.join(PARTS)})\b|\Z)", header, re.DOTALL | re.MULTILINE)
    assert found, f"no {name} in the header"
    return re.sub(r"\n--\s*", "   ", found[1]).strip()


def inputs(text: str, name: str) -> Inputs:
    said, _, each = re.sub("then for each rule:", "then for each job:", part(text, name)).partition(
        "then for each job:"
    )
    numbers = [(int(number), dots) for number, dots in re.findall(r"(?:^|\s{2,})(\d+)(\.\.)? ", said)]
    assert [number for number, _ in numbers] == list(range(1, len(numbers) + 1))
    fixed = sum(1 for _, dots in numbers if not dots)
    each_job = len(re.sub(r"\(.*?\)", "", each).split(",")) if each else 0
    return Inputs(fixed, each_job or len(numbers) - fixed)


@pytest.mark.parametrize("name", TEXTS)
def test_a_header_begins_with_the_name_and_has_every_part(name: str) -> None:
    assert TEXTS[name].startswith(f"-- {name}: ")
    assert all(part(TEXTS[name], said) for said in PARTS)


@pytest.mark.parametrize("name", MOVES | READS)
async def test_a_header_names_as_many_keys_and_arguments_as_are_sent(name: str) -> None:
    _, called, key_count, *rest = await command_of(name)
    script = next(script for script in LOADED.values() if called in {script.sha, script.text})
    keys, argv = inputs(TEXTS[script.name], "KEYS"), inputs(TEXTS[script.name], "ARGV")

    jobs = 2  # as many as command_of asks for
    stock_lists = 4
    assert int(key_count) - 1 == keys.fixed + keys.repeated * stock_lists  # the last one is of all scripts
    assert rest[int(key_count) - 1] == "lw:1:moderation.lock:absent"
    assert len(rest) - int(key_count) == argv.fixed + argv.repeated * jobs


@pytest.mark.parametrize("name", TEXTS)
@pytest.mark.parametrize("kind", ["KEYS", "ARGV"])
def test_the_body_uses_each_of_them(name: str, kind: str) -> None:
    body = TEXTS[name].partition("\n\n")[2]

    used = {int(number) for number in re.findall(rf"\b{kind}\[(\d+)\]", body)}

    assert used == set(range(1, inputs(TEXTS[name], kind).fixed + 1))


def test_every_file_is_loaded_once_behind_the_prelude() -> None:
    assert sorted(script.name for script in LOADED.values()) == sorted(TEXTS)
    for constant, script in LOADED.items():
        assert constant.lower() == script.name
        flags = "no-writes" if script.name in READS else "allow-oom"
        assert script.text.startswith(f"#!lua flags={flags}\n" + PRELUDE)
        assert script.text.endswith(TEXTS[script.name])


def test_every_script_is_used_by_exactly_one_function() -> None:
    modules = files(scripts.__package__).iterdir()
    functions = [
        node
        for module in modules
        if module.name.endswith(".py")
        for node in ast.walk(ast.parse(module.read_text("utf-8")))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    ]
    users = Counter(
        node.attr
        for function in functions
        for node in ast.walk(function)
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "scripts"
    )

    assert users == dict.fromkeys(LOADED, 1)


def test_every_script_has_a_move_that_is_tested_for_what_all_must_hold() -> None:
    assert {name.partition(" ")[0] for name in MOVES | READS} == set(TEXTS)
