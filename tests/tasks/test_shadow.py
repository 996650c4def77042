"""Jobs that a setting makes dry runs are dry runs in all that follows; what they say of themselves stays."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from settings import load
from tasks.message import Accepted, Rejection
from tasks.parse import parse
from tasks.shadow import NO_SHADOW, Shadow, shadow_of
from tests.message.messages import read, with_fields

if TYPE_CHECKING:
    from tasks.message import ParsedJob


def parsed(shadow: Shadow, **fields: object) -> ParsedJob:
    return parse(read(with_fields(**fields)), shadow)


@pytest.mark.parametrize(
    ("shadow", "rule", "is_dry"),
    [
        (NO_SHADOW, "r-7", False),
        (Shadow(is_for_all=True), None, True),
        (Shadow(is_for_all=True), "r-7", True),
        (Shadow(rules=frozenset({"r-7", "r-8"})), "r-7", True),
        (Shadow(rules=frozenset({"r-7", "r-8"})), "r-9", False),
        (Shadow(rules=frozenset({"r-7", "r-8"})), None, False),
    ],
)
def test_a_setting_makes_a_job_a_dry_run_and_its_fields_stay(shadow: Shadow, rule: str | None, *, is_dry: bool) -> None:
    job = parsed(shadow, rule_id=rule)

    assert isinstance(job, Accepted)
    assert job.is_dry_run is is_dry
    assert job.received_fields == {"conversation_id": "c-1", "rule_id": rule}


def test_a_job_that_asks_for_a_dry_run_is_one_whatever_the_settings_say() -> None:
    assert parsed(NO_SHADOW, dry_run=True).is_dry_run
    assert parsed(Shadow(rules=frozenset({"r-7"})), dry_run=True).is_dry_run


def test_a_message_that_is_no_job_is_rejected_all_the_same_and_remembered_as_a_dry_run() -> None:
    rejections = [
        parsed(Shadow(is_for_all=True), rule=1),
        parsed(Shadow(rules=frozenset({"r-7"})), rule_id="r-7", policies=1),
        parsed(Shadow(rules=frozenset({"r-7"})), rule_id=["r-7"]),
    ]

    assert all(isinstance(each, Rejection) for each in rejections)
    assert [each.is_dry_run for each in rejections] == [True, True, False]


def test_the_settings_name_rules_with_commas_between_them(monkeypatch: pytest.MonkeyPatch) -> None:
    assert shadow_of(load(need_token=False)) == NO_SHADOW
    monkeypatch.setenv("RULES_DRY_RUN", " r-8 ,r-7,r-8")
    monkeypatch.setenv("DRY_RUN", "true")
    assert shadow_of(load(need_token=False)) == Shadow(is_for_all=True, rules=frozenset({"r-7", "r-8"}))
