"""What Celery's monitors are shown of a job: its own fields, and nothing that people wrote."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from tasks.job import Job
from tests.message.messages import accepted, stock
from worker.broker.records import Delivery
from worker.celery_bridge.request import Request
from worker.runtime.in_flight import Assignment

FIELDS: dict[str, Any] = {
    "conversation_id": "c-1", "reason": "what a person wrote", "rule_id": "r-7", "policies": ["p-1"], "actor": "a-1",
    "correlation_id": "k-1", "requested_at": "2026-11-22T15:04:05Z", "dry_run": True, "metadata": {"note": "private"},
}  # fmt: skip


class Dispatcher:
    enabled = True
    groups = frozenset[str]()

    def __init__(self) -> None:
        self.sent: list[dict[str, Any]] = []

    def send(self, kind: str, **fields: Any) -> None:
        self.sent.append({"type": kind, **fields})


def request_of(events: Dispatcher | None = None, *, crashes: int = 0, **options: Any) -> Request:
    delivery = Delivery(
        ref="r",
        lease_token="t",
        raw=b"",
        size=0,
        received_ms=0,
        attempts=2,
        crashes=crashes,
        lease_until=0.0,
        queue="q",
    )
    assignment = Assignment(delivery, read=accepted(stock(**options)))
    consumer = SimpleNamespace(app=None, hostname="lock-1@test", event_dispatcher=events)
    return Request(assignment, 1, SimpleNamespace(name="moderation.lock_conversation"), consumer)


def test_each_field_of_a_job_is_shown_by_its_own_name_but_for_what_people_wrote() -> None:
    assert FIELDS.keys() == Job.model_fields.keys()

    shown = request_of(kwargs=FIELDS).info()["kwargs"]

    assert shown == {name: value for name, value in FIELDS.items() if name not in {"reason", "metadata"}}


def test_a_field_that_the_producer_left_out_is_not_shown() -> None:
    assert request_of(kwargs={"conversation_id": 7}).info()["kwargs"] == {"conversation_id": "7"}


@pytest.mark.parametrize(("crashes", "redelivered"), [(0, False), (1, True)])
def test_a_job_that_a_worker_died_on_is_shown_as_redelivered(crashes: int, *, redelivered: bool) -> None:
    assert request_of(crashes=crashes).info()["delivery_info"]["redelivered"] is redelivered


def test_a_received_job_tells_its_calls_and_when_it_expires() -> None:
    events = Dispatcher()

    request_of(events, expires="2026-11-22T15:04:05+00:00").received()

    (received,) = events.sent
    assert (received["retries"], received["eta"], received["expires"]) == (2, None, "2026-11-22T15:04:05+00:00")
