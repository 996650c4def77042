"""``docs/runbook.md`` has an entry for each alert, each reason of ``/readyz`` and each log event, and no others."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

from settings import Settings
from tests.deploy.monitoring import alert_rules
from tests.docs.logging_page import troubles

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "runbook.md").read_text("utf-8")
WORD = re.compile(r"[a-z]+(?:_[a-z]+)*")


def section(title: str) -> str:
    found = re.search(rf"^## {re.escape(title)}$\n(.*?)(?=^## |\Z)", PAGE, re.MULTILINE | re.DOTALL)
    assert found is not None
    return found[1]


def rows(title: str) -> list[list[str]]:
    """The cells of the rows of a section's tables, heads left out."""
    lines = [line for line in section(title).splitlines() if line.startswith("| ") and "---" not in line]
    cells = [[cell.strip() for cell in line.removeprefix("|").removesuffix("|").split("|")] for line in lines]
    return [row for row in cells if not row[0].startswith("You see")]


def seen(title: str) -> set[str]:
    """What the first cells of a section name."""
    return {name for row in rows(title) for name in re.findall(r"`(\w+)`", row[0])}


def anchors() -> set[str]:
    return {
        re.sub(r"[^\w -]", "", title).lower().replace(" ", "-")
        for title in re.findall(r"^#+ (.*)$", PAGE, re.MULTILINE)
    }


def test_each_alert_has_an_entry_and_no_other() -> None:
    assert re.findall(r"^### (\w+)$", section("Alerts"), re.MULTILINE) == [rule["alert"] for rule in alert_rules()]


@pytest.mark.parametrize("rule", alert_rules(), ids=lambda rule: rule["alert"])
def test_each_alert_leads_to_its_entry(rule: dict[str, dict[str, str]]) -> None:
    page, _, anchor = rule["annotations"]["runbook_url"].partition("#")

    assert (ROOT / page).is_file()
    assert anchor in anchors()


def test_each_log_event_that_may_be_a_warning_has_an_entry_and_no_other() -> None:
    assert len(troubles()) > 50
    assert seen("Log events") - {"warning"} == troubles()


def sources() -> list[ast.Module]:
    """What the worker is made of."""
    return [
        ast.parse(path.read_text("utf-8"))
        for room in ("tasks", "worker")
        for path in sorted((ROOT / room).rglob("*.py"))
    ]


def reasons() -> set[str]:
    """What ``/readyz`` may tell: the words of the functions that make it, and the reasons of the breakers."""
    found = set()
    for source in sources():
        for node in ast.walk(source):
            if isinstance(node, ast.FunctionDef) and node.name in {"reasons_not_ready", "fleet_held_back_by"}:
                docstring = ast.get_docstring(node, clean=False)
                found |= {text for text in texts(node) if text != docstring}
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "Breaker":
                found |= texts(node.args[0])
            if isinstance(node, ast.Dict) and [texts(key) for key in node.keys if key][-1:] == [{"reasons"}]:
                found |= texts(node.values[-1])
    return {text for text in found if WORD.fullmatch(text)}


def texts(node: ast.AST) -> set[str]:
    return {each.value for each in ast.walk(node) if isinstance(each, ast.Constant) and isinstance(each.value, str)}


def test_each_reason_of_readyz_has_an_entry_and_no_other() -> None:
    assert {"stopping", "api_down", "loop_stands_still"} <= reasons()
    assert seen("Reasons of /readyz") - {"held_back_by"} == reasons()


def verdicts() -> dict[str, str]:
    """The codes of the problems that status may find, and what it says then; ``...`` stands for what differs."""
    found = [
        node
        for name in ("verdict.py", "notes.py")
        for node in ast.walk(ast.parse((ROOT / "worker" / "cli" / "status" / name).read_text("utf-8")))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in {"Problem", "StatusNote"}
    ]
    return {ast.literal_eval(problem.args[0]): sentence(problem.args[1]) for problem in found}


def sentence(text: ast.expr) -> str:
    """A text of the source with ``...`` for what is put into it."""
    parts = text.values if isinstance(text, ast.JoinedStr) else [text]
    return "".join(str(part.value) if isinstance(part, ast.Constant) else "..." for part in parts)


def test_each_problem_that_status_finds_has_an_entry_with_its_words_and_no_other() -> None:
    entries = {
        row[1].strip("`"): row[0].strip("`") for row in rows("What `lock-worker status` says") if row[1][0] == "`"
    }

    assert entries.keys() == verdicts().keys()
    for code, words in entries.items():
        assert words in verdicts()[code], code


def test_each_phrase_of_status_that_it_quotes_is_one_that_status_says() -> None:
    said = " ".join(
        text
        for path in [
            *(ROOT / "worker" / "cli" / "status").glob("*.py"),
            ROOT / "worker" / "broker" / "redis_problems.py",
        ]
        for text in texts(ast.parse(path.read_text("utf-8")))
    )
    quoted = [phrase for row in rows("What `lock-worker status` says") for phrase in re.findall(r"`(.*?)`", row[0])]

    assert len(quoted) > 10
    for phrase in quoted:
        for part in phrase.split("..."):
            assert part.strip() in said, phrase


def test_each_row_has_three_cells_and_says_what_it_is_or_leads_on() -> None:
    for title in ("Reasons of /readyz", "What `lock-worker status` says", "Log events"):
        for row in rows(title):
            assert len(row) == 3, row
            assert row[1] or "](#" in row[2], row


def test_each_link_within_the_page_leads_somewhere() -> None:
    links = re.findall(r"\]\(#([\w-]+)\)", PAGE)

    assert len(links) > 20
    assert set(links) <= anchors()


def test_each_setting_that_it_names_exists() -> None:
    named = set(re.findall(r"`([A-Z]+(?:_[A-Z]+)+)`", PAGE))

    assert len(named) > 10
    assert named <= {*Settings.model_fields, "SSL_CERT_FILE", "SSL_CERT_DIR"}


def test_each_panel_that_it_names_is_on_the_dashboard() -> None:
    dashboard = (ROOT / "deploy" / "grafana" / "lock-worker.json").read_text("utf-8")

    panels = re.findall(r"[Pp]anel \*(.*?)\*", PAGE)

    assert panels
    for panel in panels:
        assert f'"title": "{panel}"' in dashboard
