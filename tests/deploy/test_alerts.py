"""The alert rules: each fires when it should and not when it should not, and leads to an entry of the runbook."""

from __future__ import annotations

import re
import subprocess
from typing import Any

import pytest

from tests.deploy.metrics import OF_PROMETHEUS, exposed, metrics_in
from tests.deploy.monitoring import ALERTS, DEPLOY, alert_rules, program, read_yaml

RULES = alert_rules()
NAMES = [rule["alert"] for rule in RULES]
UNIT_TESTS = read_yaml(ALERTS.with_name("alerts_test.yml"))["tests"]


def ends_well(*command: object) -> None:
    done = subprocess.run([*map(str, command)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_prometheus_accepts_the_rules() -> None:
    ends_well(program("promtool"), "check", "rules", "--lint=all", "--lint-fatal", ALERTS)


def test_the_unit_tests_of_the_rules_pass() -> None:
    ends_well(program("promtool"), "test", "rules", ALERTS.with_name("alerts_test.yml"))


def test_prometheus_and_alertmanager_accept_the_examples() -> None:
    ends_well(program("promtool"), "check", "config", DEPLOY / "prometheus" / "prometheus.yml")
    ends_well(program("amtool"), "check-config", DEPLOY / "prometheus" / "alertmanager.yml")


@pytest.mark.parametrize("name", NAMES)
def test_each_alert_has_a_unit_test_in_which_it_fires_and_one_in_which_it_does_not(name: str) -> None:
    expected = [
        bool(moment.get("exp_alerts"))
        for test in UNIT_TESTS
        for moment in test["alert_rule_test"]
        if moment["alertname"] == name
    ]

    assert {*expected} == {True, False}


def test_no_unit_test_is_of_an_alert_that_is_gone() -> None:
    assert {moment["alertname"] for test in UNIT_TESTS for moment in test["alert_rule_test"]} == set(NAMES)


@pytest.mark.parametrize("rule", RULES, ids=NAMES)
def test_each_alert_says_how_bad_it_is_what_it_is_and_where_to_read_on(rule: dict[str, Any]) -> None:
    assert rule["alert"].startswith("LockWorker")
    assert rule["labels"]["severity"] in {"critical", "warning", "info"}
    assert rule["annotations"].keys() == {"summary", "description", "runbook_url"}
    assert re.fullmatch(r"[A-Z].*\.", rule["annotations"]["summary"])
    assert re.fullmatch(r".*\.", rule["annotations"]["description"])
    assert rule["annotations"]["runbook_url"] == f"docs/runbook.md#{rule['alert'].lower()}"


def test_each_metric_that_the_alerts_read_is_exposed() -> None:
    read = set().union(*(metrics_in(rule["expr"]) for rule in RULES)) - OF_PROMETHEUS

    assert len(read) > 10
    assert read - exposed() == set()


def test_every_alert_that_a_cause_silences_exists() -> None:
    inhibitions = read_yaml(DEPLOY / "prometheus" / "alertmanager.yml")["inhibit_rules"]
    for rule in inhibitions:
        for matcher in rule["source_matchers"] + rule["target_matchers"]:
            found = re.fullmatch(r'alertname=~?"LockWorker(?:\(([\w|]+)\)|(\w+))"', matcher)
            assert found is not None, matcher
            assert {f"LockWorker{name}" for name in (found[1] or found[2]).split("|")} <= set(NAMES)
