"""``docs/failure-modes.md`` names settings, log events and counters: it must not go on naming what is gone."""

from __future__ import annotations

import ast
import re
from pathlib import Path
from typing import get_args

import pytest

from settings import Settings
from tasks.outcome import OutcomeName, ProblemType
from tests.docs.logging_page import troubles
from worker.observe.metrics_page import OF_A_WORKER as REGISTRY

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "failure-modes.md").read_text("utf-8")
SOURCES = [path.read_text("utf-8") for room in ("tasks", "worker") for path in sorted((ROOT / room).rglob("*.py"))]
SCRIPTS = [path.read_text("utf-8") for path in sorted((ROOT / "worker" / "broker" / "lua").glob("*.lua"))]
#: Of no concern to an operator, or told of in the page that is about them.
UNTOLD = {"intake_error"}


def named(kind: str) -> set[str]:
    """What the page names as one of a kind: ``log `this`, `that` or `another```."""
    lists = re.findall(rf"\b{kind} ((?:`\w+`(?:, | and | or )?)+)", PAGE)
    return {name for one in lists for name in re.findall(r"`(\w+)`", one)}


def strings_in(source: str) -> set[str]:
    return {
        node.value
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
    }


def test_each_setting_that_it_names_exists() -> None:
    words = set(re.findall(r"`([A-Z]+(?:_[A-Z]+)+)`", PAGE))

    assert len(words) > 10
    assert words <= {*Settings.model_fields, "SSL_CERT_FILE", "SSL_CERT_DIR"}


def test_each_default_that_it_tells_is_right() -> None:
    told = re.findall(r"`([A-Z_]+)` \(([0-9.,]+)\)", PAGE)

    assert len(told) > 10
    for name, value in told:
        assert Settings.model_fields[name].default == float(value.replace(",", "")), name


@pytest.mark.parametrize("kind", ["log", "not ready", "reason"])
def test_each_word_for_operators_that_it_names_is_one_that_the_worker_says(kind: str) -> None:
    said = set().union(*map(strings_in, SOURCES))

    assert named(kind)
    assert named(kind) <= said


def test_each_warning_and_error_that_the_worker_logs_is_documented() -> None:
    found = troubles()

    assert len(found) > 50
    assert {name for name in found - UNTOLD if f"`{name}`" not in PAGE} == set()


def test_each_counter_that_it_names_is_counted() -> None:
    counted = {name for script in SCRIPTS for name in re.findall(r"(?:count\(|counters, )'(\w+)'", script)}

    assert named("counter")
    assert named("counter") <= counted


def test_each_metric_that_it_names_is_kept() -> None:
    kept = {sample.name for metric in REGISTRY.collect() for sample in metric.samples} | {
        f"{metric.name}_total" if metric.type == "counter" else metric.name for metric in REGISTRY.collect()
    }

    assert named("metric")
    assert named("metric") <= kept


def test_each_outcome_and_error_that_it_names_is_one_of_the_contract() -> None:
    assert named("outcome") <= set(get_args(OutcomeName))
    assert named("error") <= {kind.value for kind in ProblemType}


def test_its_tables_have_five_columns_throughout() -> None:
    rows = [line for line in PAGE.splitlines() if line.startswith("|")]

    assert {line.count("|") for line in rows} == {6}


def test_what_the_readme_says_of_the_chaos_runs_stands_in_the_page() -> None:
    readme = " ".join((ROOT / "README.md").read_text("utf-8").split())
    said = re.search(
        r"`make chaos MINUTES=(\d+) SEED=(\d+)` killed real workers (\d+) times .* stock Celery worker .*?\[", readme
    )
    assert said is not None

    figures = re.findall(r"\d[\d,]*\d", said[0])

    assert len(figures) >= 8
    for figure in figures:
        assert re.search(rf"(?<![\d,.]){figure}(?![\d,]\d|\d)", PAGE), figure
