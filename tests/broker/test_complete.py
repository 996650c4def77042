"""complete: publishing the event is the acknowledgement."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from worker.broker.keys import digest
from worker.broker.move_limits import KEPT_BYTES, MAX_MESSAGE_BYTES
from worker.broker.records import Claim, CompleteAnswer, Duplicate

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.broker.workbench import Workbench

ANY_BYTES = bytes(range(256)) + b"\r\n\x00\xff\xfe{}"

PUBLISHED, DUPLICATE, GONE = CompleteAnswer.PUBLISHED, Duplicate(None), CompleteAnswer.GONE
TAKEN, CONFLICT = CompleteAnswer.TAKEN, CompleteAnswer.CONFLICT


@pytest.fixture
def heard(bench: Workbench) -> Iterator[Callable[[], list[bytes]]]:
    """What a listener of the pub/sub channel has heard up to now."""
    end = b"the end of what was heard"
    with bench.client.pubsub() as listener:
        listener.subscribe(bench.broker_options.results)
        assert listener.get_message(timeout=5)["type"] == "subscribe"

        def hear() -> list[bytes]:
            bench.run("PUBLISH", bench.broker_options.results, end)
            events: list[bytes] = []
            while (message := listener.get_message(timeout=5)) is not None and message["data"] != end:
                events.append(message["data"])
            return events

        yield hear


async def test_the_event_is_in_the_stream_and_on_the_channel_once_and_the_job_is_gone(
    bench: Workbench, heard: Callable[[], list[bytes]]
) -> None:
    job = bench.take_one()

    answers = await bench.moves.complete([bench.completion(job, event=ANY_BYTES)])

    assert answers == [PUBLISHED]
    assert bench.events() == [ANY_BYTES]
    assert heard() == [ANY_BYTES]
    assert bench.dead_letters() == []
    assert bench.in_flight() == []
    assert bench.record(job) == {}


async def test_a_dead_letter_holds_event_and_message_byte_for_byte(
    bench: Workbench, heard: Callable[[], list[bytes]]
) -> None:
    job = bench.take_one(ANY_BYTES)

    await bench.moves.complete([bench.completion(job, event=b"no" + ANY_BYTES, outcome="refused", is_dead_letter=True)])

    assert bench.dead_letters() == [(b"no" + ANY_BYTES, ANY_BYTES)]
    assert bench.events() == heard() == [b"no" + ANY_BYTES]


@pytest.mark.parametrize("size", [KEPT_BYTES, KEPT_BYTES + 1, 1024 * 1024, 1024 * 1024 + 1])
async def test_the_dead_letter_of_a_large_message_that_was_rejected_holds_its_first_64_kib(
    bench: Workbench, size: int
) -> None:
    message = (ANY_BYTES * 8192)[:size]
    job = bench.take_one(message)

    await bench.moves.complete([bench.completion(job, outcome="rejected", is_dead_letter=True)])

    assert bench.dead_letters() == [(b"an event", message[: 64 * 1024])]


@pytest.mark.parametrize("outcome", ["refused", "exhausted", "poisoned", "cancelled"])
async def test_the_dead_letter_of_a_job_holds_its_whole_message_however_large(bench: Workbench, outcome: str) -> None:
    message = ANY_BYTES * (MAX_MESSAGE_BYTES // len(ANY_BYTES))
    job = bench.take_one(message)

    await bench.moves.complete([bench.completion(job, outcome=outcome, is_dead_letter=True)])

    assert bench.dead_letters() == [(b"an event", message)]


async def test_a_dead_letter_names_its_queue_between_the_event_and_the_message(bench: Workbench) -> None:
    for queue in (bench, bench.beside("another queue")):
        job = queue.take_one(b"a message")
        await queue.moves.complete([queue.completion(job, is_dead_letter=True)])

    letters = [list(fields.items()) for _, fields in bench.client.xrange(bench.broker_options.dead)]
    assert letters == [
        [(b"event", b"an event"), (b"queue", queue), (b"message", b"a message")]
        for queue in (b"moderation.lock", b"another queue")
    ]
    bench.client.delete(*bench.client.keys("lw:1:another queue:*"))


async def test_each_job_of_a_call_gets_its_own_answer(bench: Workbench, heard: Callable[[], list[bytes]]) -> None:
    # given five jobs, of which one was taken over by another worker and one has ended already
    bench.push(b"1", b"2", b"3", b"4", b"5")
    jobs = bench.take().jobs
    await bench.moves.complete([bench.completion(jobs[3], event=b"event 4")])
    stale = replace(jobs[1], lease_token="not this one")

    # when all are ended in one call
    answers = await bench.moves.complete(
        [
            bench.completion(jobs[0], event=b"event 1"),
            bench.completion(stale, event=b"event 2"),
            bench.completion(jobs[2], event=b"event 3", outcome="refused", is_dead_letter=True),
            bench.completion(jobs[3], event=b"event 4"),
            bench.completion(jobs[4], event=b""),
        ]
    )

    # then each gets what it deserves
    assert answers == [PUBLISHED, GONE, PUBLISHED, GONE, DUPLICATE]
    assert bench.events() == heard() == [b"event 4", b"event 1", b"event 3"]
    assert bench.dead_letters() == [(b"event 3", b"3")]
    assert bench.in_flight() == [jobs[1].ref]


async def test_a_repeated_call_publishes_nothing(bench: Workbench, heard: Callable[[], list[bytes]]) -> None:
    end = bench.completion(bench.take_one(), job_id="a job", is_dead_letter=True)
    assert await bench.moves.complete([end]) == [PUBLISHED]
    before = bench.snapshot()

    assert await bench.moves.complete([end]) == [GONE]

    assert bench.snapshot() == before
    assert len(heard()) == 1


async def test_a_job_named_twice_in_one_call_ends_once(bench: Workbench, heard: Callable[[], list[bytes]]) -> None:
    end = bench.completion(bench.take_one())

    assert await bench.moves.complete([end, end]) == [PUBLISHED, GONE]

    assert len(bench.events()) == len(heard()) == 1


async def test_a_worker_that_lost_its_lease_publishes_nothing(
    bench: Workbench, heard: Callable[[], list[bytes]]
) -> None:
    # given a job that was recovered from a stalled worker and is in flight in another worker now
    lost = bench.take_one()
    await bench.crash(lost)
    (job,) = bench.take().jobs
    before = bench.snapshot()

    # when the stalled worker comes back with its result
    answers = await bench.moves.complete([bench.completion(lost, event=b"late", job_id="a job", is_dead_letter=True)])

    # then nothing comes of it, and the other worker's result is the one
    assert answers == [GONE]
    assert bench.snapshot() == before
    assert heard() == []
    assert await bench.moves.complete([bench.completion(job, event=b"in time")]) == [PUBLISHED]
    assert bench.events() == [b"in time"]


@pytest.mark.parametrize("state", ["delayed", "released", "recovered"])
async def test_a_job_in_nobodys_hands_cannot_be_ended(bench: Workbench, state: str) -> None:
    job = bench.take_one()
    if state == "delayed":
        await bench.delay(job)
    elif state == "released":
        await bench.moves.release([job])
    else:
        await bench.crash(job)
    before = bench.snapshot()

    assert await bench.moves.complete([bench.completion(job)]) == [GONE]

    assert bench.snapshot() == before


async def test_a_lease_that_is_over_but_not_recovered_still_counts(bench: Workbench) -> None:
    job = bench.take_one()
    bench.lapse(job)

    assert await bench.moves.complete([bench.completion(job)]) == [PUBLISHED]


async def test_a_duplicate_in_flight_beside_the_first_gives_no_second_event(
    bench: Workbench, heard: Callable[[], list[bytes]]
) -> None:
    bench.push(b"sent twice", b"sent twice")
    first, second = bench.take().jobs
    assert await bench.moves.complete([bench.completion(first, event=b"first", job_id="a job")]) == [PUBLISHED]

    answers = await bench.moves.complete(
        [bench.completion(second, event=b"second", job_id="a job", outcome="exhausted", is_dead_letter=True)]
    )

    assert answers == [DUPLICATE]
    assert bench.events() == heard() == [b"first"]
    assert bench.dead_letters() == []
    assert bench.in_flight() == []
    assert bench.record(second) == {}


async def test_two_duplicates_in_one_call_give_one_event(bench: Workbench) -> None:
    bench.push(b"sent twice", b"sent twice")
    first, second = bench.take().jobs

    answers = await bench.moves.complete(
        [bench.completion(first, job_id="a job"), bench.completion(second, job_id="a job")]
    )

    assert answers == [PUBLISHED, DUPLICATE]
    assert len(bench.events()) == 1


async def test_an_empty_event_drops_a_duplicate_in_silence(bench: Workbench, heard: Callable[[], list[bytes]]) -> None:
    job = bench.take_one()

    answers = await bench.moves.complete([bench.completion(job, event=b"", job_id="a job", is_dead_letter=True)])

    assert answers == [DUPLICATE]
    assert bench.events() == heard() == []
    assert bench.dead_letters() == []
    assert bench.in_flight() == []
    assert bench.record(job) == {}
    assert bench.run("EXISTS", bench.keys.id_prefix + digest("a job")) == 0


async def test_an_id_that_is_only_claimed_holds_no_event_back(bench: Workbench) -> None:
    job = bench.take_one()
    await bench.moves.claim([Claim(digest("a job"), digest("a conversation"))])

    assert await bench.moves.complete([bench.completion(job, job_id="a job")]) == [PUBLISHED]


@pytest.mark.parametrize("is_dry_run_first", [True, False], ids=["dry run first", "job first"])
async def test_of_a_dry_run_and_the_job_of_one_id_the_second_to_end_needs_an_event_id_of_its_own(
    bench: Workbench, *, is_dry_run_first: bool
) -> None:
    bench.push(b"one", b"the other")
    first, second = bench.take().jobs
    end = bench.completion(first, event=b"first", job_id="a job", is_dry_run=is_dry_run_first)
    assert await bench.moves.complete([end]) == [PUBLISHED]
    before = bench.snapshot()
    end = bench.completion(second, event=b"second", job_id="a job", is_dry_run=not is_dry_run_first)

    assert await bench.moves.complete([end]) == [TAKEN]

    assert bench.snapshot() == before
    assert await bench.moves.complete([replace(end, has_own_id=True)]) == [PUBLISHED]
    assert bench.events() == [b"first", b"second"]


async def test_a_dry_run_and_its_job_in_one_call_do_not_both_have_the_id(bench: Workbench) -> None:
    bench.push(b"one", b"the other")
    first, second = bench.take().jobs
    ends = [bench.completion(first, job_id="a job"), bench.completion(second, job_id="a job", is_dry_run=True)]

    assert await bench.moves.complete(ends) == [PUBLISHED, TAKEN]

    assert bench.in_flight() == [second.ref]


@pytest.mark.parametrize("is_dry_run", [True, False])
async def test_an_id_that_came_to_stand_for_something_else_meanwhile_goes_on_standing_for_it(
    bench: Workbench, *, is_dry_run: bool
) -> None:
    # given a job that was held for longer than its claim lasts, and another one that took and used its id
    bench.push(b"held for long", b"another")
    slow, other = bench.take().jobs
    await bench.moves.complete([bench.completion(other, job_id="a job", fingerprint=digest("another conversation"))])
    before = bench.snapshot()
    end = bench.completion(slow, job_id="a job", is_dry_run=is_dry_run)

    for each in (end, replace(end, has_own_id=True)):
        assert await bench.moves.complete([each]) == [CONFLICT]

    assert bench.snapshot() == before
    beside = replace(end, id_digest=digest("beside"), is_dry_run=False, has_own_id=True)
    assert await bench.moves.complete([beside]) == [PUBLISHED]
    assert (
        bench.run("GET", bench.keys.id_prefix + digest("a job")).decode() == f"ended {digest('another conversation')}"
    )


async def test_a_message_without_a_conversation_is_a_duplicate_of_nothing_but_its_event_may_have_the_jobs_id_once(
    bench: Workbench,
) -> None:
    bench.push(b"1", b"2", b"3", b"4")
    nowhere, again, job, rehearsal = bench.take().jobs
    ends = [
        bench.completion(nowhere, job_id="a job", fingerprint="", outcome="rejected"),
        bench.completion(again, job_id="a job", fingerprint="", outcome="rejected"),
        bench.completion(job, job_id="a job"),
        bench.completion(rehearsal, job_id="a job", is_dry_run=True),
    ]

    assert await bench.moves.complete(ends) == [PUBLISHED, TAKEN, TAKEN, TAKEN]

    others = [replace(end, has_own_id=True) for end in ends[1:]]
    others[0] = replace(others[0], id_digest="")  # of a second one nothing needs to be remembered
    assert await bench.moves.complete(others) == [PUBLISHED] * 3


async def test_after_a_job_the_event_of_a_message_without_a_conversation_cannot_have_its_id(bench: Workbench) -> None:
    bench.push(b"1", b"2")
    job, nowhere = bench.take().jobs
    await bench.moves.complete([bench.completion(job, job_id="a job")])

    assert await bench.moves.complete([bench.completion(nowhere, job_id="a job", fingerprint="")]) == [TAKEN]


async def test_a_dry_run_keeps_its_id_for_its_conversation_counted_from_its_event(bench: Workbench) -> None:
    job = bench.take_one()
    id_key = bench.keys.id_prefix + digest("a job")
    await bench.moves.claim([Claim(digest("a job"), digest("a conversation"), is_dry_run=True)])
    bench.run("PEXPIRE", id_key, 5_000)

    await bench.moves.complete([bench.completion(job, job_id="a job", is_dry_run=True)])

    assert bench.run("GET", id_key) == f"claimed {digest('a conversation')}".encode()
    assert bench.run("GET", f"{id_key}:other") == f"ended {digest('a conversation')}".encode()
    for key in (id_key, f"{id_key}:other"):
        assert bench.broker_options.dedup_ttl_ms - 5_000 < bench.run("PTTL", key) <= bench.broker_options.dedup_ttl_ms


async def test_a_dry_run_does_not_prolong_the_memory_of_the_job(bench: Workbench) -> None:
    bench.push(b"1", b"2")
    job, rehearsal = bench.take().jobs
    await bench.moves.complete([bench.completion(job, job_id="a job")])
    id_key = bench.keys.id_prefix + digest("a job")
    bench.run("PEXPIRE", id_key, 5_000)

    await bench.moves.complete([bench.completion(rehearsal, job_id="a job", is_dry_run=True, has_own_id=True)])

    assert bench.run("GET", id_key) == f"ended {digest('a conversation')}".encode()
    assert 0 < bench.run("PTTL", id_key) <= 5_000


@pytest.mark.parametrize("event", [b"an event", b""], ids=["in flight beside it", "told by its claim"])
@pytest.mark.parametrize("is_dry_run", [True, False])
@pytest.mark.parametrize("outcome", ["refused", "would_lock", "locked"])
async def test_a_duplicate_is_answered_how_the_first_one_ended_if_without_a_lock(
    bench: Workbench, outcome: str, event: bytes, *, is_dry_run: bool
) -> None:
    bench.push(b"sent twice", b"sent twice")
    first, second = bench.take().jobs
    end = bench.completion(first, job_id="a job", outcome=outcome, is_dry_run=is_dry_run)
    await bench.moves.complete([end])
    duplicate = bench.completion(second, event=event, job_id="a job", outcome="exhausted", is_dry_run=is_dry_run)

    assert await bench.moves.complete([duplicate]) == [Duplicate(None if outcome == "locked" else outcome)]


async def test_two_duplicates_in_one_call_know_of_each_other(bench: Workbench) -> None:
    bench.push(b"sent twice", b"sent twice")

    ends = [bench.completion(job, job_id="a job", outcome="refused") for job in bench.take().jobs]

    assert await bench.moves.complete(ends) == [PUBLISHED, Duplicate("refused")]


async def test_a_duplicate_of_a_job_that_the_version_before_ended_is_one_and_nothing_is_said_of_its_end(
    bench: Workbench,
) -> None:
    bench.run("SET", bench.keys.id_prefix + digest("a job"), f"ended {digest('a conversation')}", "PX", 60_000)

    assert await bench.moves.complete([bench.completion(bench.take_one(), job_id="a job")]) == [Duplicate(None)]


async def test_how_a_job_ended_is_remembered_as_long_as_that_it_did(bench: Workbench) -> None:
    await bench.moves.complete([bench.completion(bench.take_one(), job_id="a job", outcome="refused")])

    id_key = bench.keys.id_prefix + digest("a job")
    assert (
        bench.run("GET", id_key) == f"ended {digest('a conversation')}".encode()
    )  # what the version before understands
    assert abs(bench.run("PEXPIRETIME", id_key) - bench.run("PEXPIRETIME", f"{id_key}:unlocked")) <= 1


async def test_jobs_without_an_id_are_never_duplicates_of_each_other(bench: Workbench) -> None:
    bench.push(b"the same", b"the same")
    jobs = bench.take().jobs

    answers = await bench.moves.complete([bench.completion(job) for job in jobs])

    assert answers == [PUBLISHED, PUBLISHED]
    assert bench.client.keys(bench.keys.id_prefix + "*") == []


async def test_an_ended_id_is_remembered_for_a_while_counted_from_its_event(bench: Workbench) -> None:
    # given a claim that is nearly over
    job = bench.take_one()
    id_key = bench.keys.id_prefix + digest("a job")
    await bench.moves.claim([Claim(digest("a job"), digest("a conversation"))])
    bench.run("PEXPIRE", id_key, 5_000)

    # when the job ends
    await bench.moves.complete([bench.completion(job, job_id="a job")])

    # then the time begins anew
    assert bench.run("GET", id_key) == f"ended {digest('a conversation')}".encode()
    assert bench.broker_options.dedup_ttl_ms - 5_000 < bench.run("PTTL", id_key) <= bench.broker_options.dedup_ttl_ms


async def test_a_dropped_duplicate_does_not_prolong_the_memory_of_its_id(bench: Workbench) -> None:
    bench.push(b"sent twice", b"sent twice")
    first, second = bench.take().jobs
    await bench.moves.complete([bench.completion(first, job_id="a job")])
    id_key = bench.keys.id_prefix + digest("a job")
    bench.run("PEXPIRE", id_key, 5_000)

    await bench.moves.complete([bench.completion(second, job_id="a job")])

    assert 0 < bench.run("PTTL", id_key) <= 5_000


@pytest.mark.parametrize("is_dry_run", [True, False])
async def test_a_key_that_somebody_put_where_an_id_belongs_holds_nothing_up(
    bench: Workbench, *, is_dry_run: bool
) -> None:
    key = bench.keys.id_prefix + digest("a job") + (":other" if is_dry_run else "")
    bench.run("RPUSH", key, "not ours")

    answers = await bench.moves.complete([bench.completion(bench.take_one(), job_id="a job", is_dry_run=is_dry_run)])

    assert answers == [PUBLISHED]
    assert bench.run("GET", key) == f"ended {digest('a conversation')}".encode()


async def test_both_streams_are_trimmed_at_about_their_length(bench: Workbench) -> None:
    # Redis trims whole nodes of at most 100 entries
    short = bench.under(results_maxlen=200, dead_maxlen=100)
    bench.run("LPUSH", bench.keys.queue, *range(500))
    jobs = bench.take(256).jobs + bench.take(256).jobs

    await short.moves.complete([bench.completion(job, is_dead_letter=True) for job in jobs])

    assert 200 <= len(bench.events()) < 300
    assert 100 <= len(bench.dead_letters()) < 200
    assert bench.dead_letters()[-1] == (b"an event", jobs[-1].raw)


async def test_every_end_is_counted_and_every_outcome_by_its_name(bench: Workbench) -> None:
    bench.push(*[b"a job"] * 6)
    jobs = bench.take().jobs
    gone = bench.completion(replace(jobs[5], lease_token="not this one"))

    await bench.moves.complete(
        [
            bench.completion(jobs[0]),
            bench.completion(jobs[1]),
            bench.completion(jobs[2], outcome="refused", is_dead_letter=True),
            bench.completion(jobs[3], event=b""),
            gone,
        ]
    )
    await bench.moves.complete([bench.completion(jobs[4], outcome="refused", is_dead_letter=True)])

    assert bench.counters() == {
        "taken": 6, "finished": 4, "deduplicated": 1, "outcome:locked": 2, "outcome:refused": 2,
    }  # fmt: skip


@pytest.mark.parametrize("damage", ["deleted", "overwritten"])
async def test_a_destroyed_record_does_not_stop_the_others(bench: Workbench, damage: str) -> None:
    bench.push(b"1", b"2", b"3")
    jobs = bench.take().jobs
    record = bench.record_key(jobs[1])
    bench.run("DEL", record)
    if damage == "overwritten":
        bench.run("RPUSH", record, "somebody's own")

    answers = await bench.moves.complete([bench.completion(job) for job in jobs])

    assert answers == [PUBLISHED, GONE, PUBLISHED]
    if damage == "overwritten":
        assert bench.run("LPOP", record) == b"somebody's own"


async def test_a_record_that_lost_its_message_ends_all_the_same(bench: Workbench) -> None:
    bench.push(b"1", b"2")
    jobs = bench.take().jobs
    bench.run("HDEL", bench.record_key(jobs[0]), "raw")

    answers = await bench.moves.complete([bench.completion(job, is_dead_letter=True) for job in jobs])

    assert answers == [PUBLISHED, PUBLISHED]
    assert bench.dead_letters() == [(b"an event", b""), (b"an event", b"2")]


async def test_a_call_with_no_jobs_changes_nothing(bench: Workbench) -> None:
    assert await bench.moves.complete([]) == []
    assert bench.snapshot() == {}


async def test_many_jobs_end_in_one_call(bench: Workbench) -> None:
    bench.run("LPUSH", bench.keys.queue, *range(1000))
    jobs = [job for _ in range(4) for job in bench.take(250).jobs]

    answers = await bench.moves.complete([bench.completion(job, job_id=job.ref) for job in jobs])

    assert answers == [PUBLISHED] * 1000
    assert bench.counters()["finished"] == 1000
