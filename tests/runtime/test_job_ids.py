"""What a job's id stands for, and which ids events get that it cannot name."""

from __future__ import annotations

import re
from typing import Any

from tasks.job import Job
from tasks.message import Accepted, Rejection
from tasks.outcome import Problem, ProblemType
from worker.broker.keys import digest
from worker.broker.records import Claim, Delivery
from worker.runtime.job_ids import own_event_id, to_claim, to_remember, with_lasting_id

UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")


def job(
    conversation_id: str = "c-1", *, job_id: str = "job-1", has_own_id: bool = True, dry_run: bool = False
) -> Accepted:
    fields: dict[str, Any] = {"conversation_id": conversation_id, "dry_run": dry_run}
    return Accepted(
        id=job_id, fingerprint=conversation_id if has_own_id else None, job=Job(**fields), received_fields=fields,
        not_before=None, expires_at=None, traceparent=None, replay_of=None, ignored=(),
    )  # fmt: skip


def no_job(fingerprint: str | None, *, is_dry_run: bool = False) -> Rejection:
    problem = Problem(ProblemType.INVALID_JOB, "")
    return Rejection("job-1", fingerprint, fingerprint or None, problem, None, None, is_dry_run=is_dry_run)


def remembered(intake: Accepted | Rejection, *, is_conflict: bool = False, has_own_id: bool = False) -> Claim:
    return to_remember(intake, is_conflict=is_conflict, has_own_id=has_own_id)


def test_a_job_is_remembered_by_what_it_claimed_whichever_id_its_event_has() -> None:
    for intake in (job(), job(dry_run=True), no_job("c-1"), no_job("c-1", is_dry_run=True)):
        claim = Claim(digest("job-1"), digest("c-1"), intake.is_dry_run)
        assert to_claim(intake) == remembered(intake) == remembered(intake, has_own_id=True) == claim


def test_an_id_that_the_worker_gave_is_neither_claimed_nor_remembered() -> None:
    for intake in (job(has_own_id=False), no_job(None)):
        assert to_claim(intake) is None
        assert remembered(intake).id_digest == ""


def test_a_message_without_a_conversation_claims_nothing_and_only_its_event_under_the_jobs_id_is_remembered() -> None:
    assert to_claim(no_job("")) is None
    assert remembered(no_job("")) == Claim(digest("job-1"), "")
    assert remembered(no_job(""), has_own_id=True).id_digest == ""


def test_the_end_of_a_conflict_is_remembered_by_the_id_and_the_conversation() -> None:
    assert remembered(job(), is_conflict=True, has_own_id=True) == Claim(digest("job-1\nc-1"), digest("c-1"))


def test_what_is_remembered_is_as_short_for_the_longest_ids() -> None:
    short, long = job(), job("\N{LOCK}" * 256, job_id="\N{KEY}" * 128)

    for of in (to_claim, remembered):
        assert len(str(of(short))) == len(str(of(long)))


def test_no_two_things_share_what_a_conflict_is_remembered_by() -> None:
    jobs = [job(), job("c-2"), job(job_id="job-2"), job(dry_run=True), job("c-2", dry_run=True)]

    assert len({remembered(each, is_conflict=True) for each in jobs}) == len(jobs)


def test_an_id_of_its_own_is_a_uuid_that_follows_from_the_job_and_from_why_it_has_one() -> None:
    jobs: list[Accepted | Rejection] = [job(), job("c-2"), job(job_id="job-2"), job(dry_run=True), no_job("c-3")]

    ids = [own_event_id(each, is_conflict=is_conflict) for each in jobs for is_conflict in (True, False)]

    assert all(map(UUID.fullmatch, ids))
    assert len(set(ids)) == len(ids)
    assert ids == [own_event_id(each, is_conflict=is_conflict) for each in jobs for is_conflict in (True, False)]
    # Workers of all versions must give the same.
    assert ids[1] == "7214ed4a-b3e5-5079-9106-e9cfd951539c"


def test_messages_without_a_conversation_never_share_an_id_of_their_own() -> None:
    assert own_event_id(no_job(""), is_conflict=False) != own_event_id(no_job(""), is_conflict=False)


def delivery(ref: str, *, take: str = "take-1", queue: str = "a") -> Delivery:
    return Delivery(
        ref=ref, lease_token=take, raw=b"", size=0, received_ms=0, attempts=0, crashes=0, lease_until=0, queue=queue
    )


def test_a_job_whose_message_has_no_id_has_one_in_all_deliveries_and_no_other_job_has_it() -> None:
    first, again = (job(job_id=f"anonymous-abc-{chance}", has_own_id=False) for chance in ("1", "2"))

    lasting = with_lasting_id(first, delivery("r-1"))

    assert re.fullmatch(r"anonymous-abc-[0-9a-f]{16}", lasting.id)
    assert with_lasting_id(again, delivery("r-1", take="take-2")) == lasting
    assert with_lasting_id(first, delivery("r-2")).id != lasting.id
    assert with_lasting_id(first, delivery("r-1", queue="b")).id != lasting.id


def test_an_id_that_the_producer_gave_stays() -> None:
    for intake in (job(), no_job("c-1"), no_job("")):
        assert with_lasting_id(intake, delivery("r-1")) is intake
