"""``docs/internals.md`` names files, tests, moves, keys, types and figures: it must not go on naming what is gone.

Nor must the index of the pages, and their links.
"""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

import worker.broker.keys
from benchmarks import results
from benchmarks.results import median

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "internals.md").read_text("utf-8")
FILES = sorted(set(re.findall(r"`((?:\w+/)*\w+\.(?:py|lua|md))(?:::\w+)?`", PAGE)))
TESTS = sorted(set(re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", PAGE)))
LUA = ROOT / "worker" / "broker" / "lua"
MOVES = {path.stem for path in LUA.glob("*.lua")} - {"prelude"}


def section(title: str) -> str:
    found = re.search(rf"^## {title}$\n(.*?)(?=^## |\Z)", PAGE, re.MULTILINE | re.DOTALL)
    assert found is not None
    return found[1]


def rows(text: str) -> list[list[str]]:
    """The cells of each row of the tables in a text, heads left out."""
    lines = [line for line in text.splitlines() if line.startswith("|")]
    body = [line for at, line in enumerate(lines) if "---" not in line and "---" not in "".join(lines[at + 1 : at + 2])]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in body]


def row(text: str, name: str) -> list[str]:
    (found,) = [cells for cells in rows(text) if cells[0] == f"**{name}**"]
    return found


@pytest.mark.parametrize("file", FILES)
def test_each_file_that_it_names_is_there(file: str) -> None:
    assert (ROOT / file).is_file() or (ROOT / "docs" / file).is_file()


@pytest.mark.parametrize(("file", "name"), TESTS)
def test_each_test_that_it_names_is_there(file: str, name: str) -> None:
    assert re.search(rf"^(?:async )?def {name}\(", (ROOT / file).read_text("utf-8"), re.MULTILINE)


def test_it_lists_each_folder_of_the_worker_and_none_that_is_gone() -> None:
    listed = {cells[0].strip("`") for cells in rows(section("The folders"))}

    assert all((ROOT / folder).is_dir() for folder in listed)
    assert {f"worker/{package.parent.name}/" for package in (ROOT / "worker").glob("*/__init__.py")} <= listed


def test_its_table_has_each_move() -> None:
    named = [cells[0].strip("`") for cells in rows(section("The states of a job")) if cells[2].startswith("`worker/")]

    assert sorted(named) == sorted(MOVES)


def test_its_picture_moves_jobs_by_moves_that_there_are() -> None:
    labels = re.findall(r"^    \S+ --> \S+: (.*)$", PAGE, re.MULTILINE)
    words = {word for label in labels for word in re.sub(r"\(.*?\)", "", label).replace(",", " ").split()}

    assert {"take", "claim", "complete", "delay", "promote", "release", "renew", "recover", "expire"} <= words & MOVES
    assert words - MOVES <= {"LPUSH", "by", "a", "producer", "BLMOVE", "wakes", "one", "worker"}


def test_its_picture_and_its_table_have_the_same_states() -> None:
    drawn = set(re.findall(r'^    state "(?:ready: )?([\w ]+)(?:, event published)?" as \w+$', PAGE, re.MULTILINE))
    told = [cells[0] for cells in rows(section("The states of a job")) if not cells[2].startswith("`worker/")]

    assert sorted(told) == sorted(drawn)


def test_each_key_that_it_names_is_one_of_ours() -> None:
    keys = worker.broker.keys.__doc__ or ""
    named = re.findall(r"\bkey `([^`]+)`", section("Glossary"))

    assert len(named) >= 4
    for key in named:
        assert re.search(rf"``lw:1:<\w+>:{re.escape(key)}``", keys), key


TYPES = [cells[:2] for cells in rows(section("The types that carry a job")) if cells[1]]


@pytest.mark.parametrize(("name", "file"), TYPES)
def test_each_type_that_it_lists_is_in_its_file(name: str, file: str) -> None:
    source = (ROOT / file.strip("`")).read_text("utf-8")

    assert re.search(rf"^(?:class {name.strip('`')}\b|{name.strip('`')}: TypeAlias)", source, re.MULTILINE)


def test_each_library_has_a_test_that_tells() -> None:
    for cells in rows(section("The libraries: what we use, what we bypass")):
        assert re.search(r"`tests/[\w/]+\.py::\w+`", cells[4]), cells[0]


def test_what_the_bypasses_save_is_what_was_measured() -> None:
    libraries = section("The libraries: what we use, what we bypass")
    run = results.read(ROOT / "benchmarks" / "results" / "latest.json")
    ours, stock = (median(run.of(name, 50), "worker_cpu_us") for name in ("lock-worker", "Celery prefork"))
    assert f"{ours:,.0f} µs of CPU a job beside {stock:,.0f} µs" in row(libraries, "celery")[3]

    measured = json.loads((ROOT / "benchmarks" / "results" / "redis_clients.json").read_text("utf-8"))["costs"]

    def costs(client: str) -> str:
        found = sorted(each["cpu_us"] for each in measured if each["client"] == client)
        return f"{found[0]:.0f} to {found[-1]:.0f}"

    bare, whole = costs("worker.broker.client"), costs("redis.asyncio.Redis")
    assert f"{bare} µs of CPU a command instead of {whole}" in row(libraries, "redis-py")[3]


@pytest.mark.parametrize(
    ("library", "page"), [("httpx", "api-client.md"), ("aiohttp", "api-client.md"), ("kombu", "failure-modes.md")]
)
def test_figures_of_other_pages_stand_there(library: str, page: str) -> None:
    saved = row(section("The libraries: what we use, what we bypass"), library)[3]
    there = (ROOT / "docs" / page).read_text("utf-8") + (ROOT / "docs" / "scaling.md").read_text("utf-8")

    figures = re.findall(r"\d[\d,.]*\d", saved)
    assert figures
    for figure in figures:
        assert re.search(rf"(?<![\d,.]){re.escape(figure)}(?![\d]|[,.]\d)", there), figure


def test_the_index_has_each_page_and_no_other() -> None:
    folder = ROOT / "docs"
    index = (folder / "README.md").read_text("utf-8")
    pages = {*folder.glob("*.md"), *folder.glob("*.json"), *folder.glob("schemas/*.json")}

    listed = {(folder / target).resolve() for target in re.findall(r"\]\(([^)#]+)\)", index)}

    assert listed == pages - {folder / "README.md"} | {ROOT / "README.md"}


def test_each_page_links_to_what_is_there() -> None:
    for page in (ROOT / "docs").glob("*.md"):
        for target in re.findall(r"\]\(([^)#:]+)\)", page.read_text("utf-8")):
            assert (page.parent / target).exists(), (page.name, target)
