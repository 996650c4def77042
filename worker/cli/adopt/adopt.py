"""Finds jobs that no worker will take, and moves each of them in one atomic step."""

from __future__ import annotations

import json
import shlex
import sys
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import typer
from kombu.exceptions import KombuError
from kombu.pidbox import Mailbox
from redis.exceptions import RedisError, WatchError

from settings import key_name_problem
from tasks.plural import plural
from worker.broker import connection
from worker.broker.command_line_moves import adopt_command
from worker.broker.connection import sync_client
from worker.broker.control_moves import Trail, cancel_command
from worker.broker.keys import Keys, slot_problem
from worker.cli.exit import USAGE_ERROR, fail, redis_address, redis_or_stop, report_if_interrupted
from worker.cli.producer import celery_app
from worker.observe.printable import printable
from worker.runtime.fleet_state import FleetNames, read_fleet_state_now
from worker.runtime.leftovers import Abandoned, Unacked, abandoned_queues, count_foreign, count_jobs, unacked_jobs

if TYPE_CHECKING:
    from collections.abc import Iterator

    from redis import Redis

    from settings import Settings

_BATCH = 100
#: How long living workers have to answer, in seconds.
_ANSWER_SECONDS = 2.0


@dataclass(slots=True)
class _Account:
    """The jobs found and moved so far."""

    adopted: int = 0
    unacked: int = 0
    kept: int = 0
    foreign: int = 0
    queues: dict[str, int] = field(default_factory=dict)
    left: list[Abandoned] = field(default_factory=list)

    def summary(self) -> str:
        """Return the summary in one line."""
        return f"{plural(self.adopted, 'job')} brought in"

    def as_json(self) -> str:
        """Return the details as JSON, for programs."""
        return json.dumps(
            {
                "adopted": self.adopted,
                "unacked": self.unacked,
                "unacked_of_living_workers": self.kept,
                "unacked_of_other_tasks": self.foreign,
                "queues": self.queues,
                "other_queues": {left.queue: left.jobs for left in self.left},
            }
        )


def adopt_jobs(settings: Settings, names: list[str], *, as_list: bool, as_json: bool) -> None:
    """Adopt all abandoned jobs, or show them; with names, only those of these queues."""
    for name in names:
        problem = key_name_problem(name) or slot_problem(name, settings.cluster_tag)
        if problem is not None or name == settings.LOCK_QUEUE:
            fail(f"--queue {name!r}: {problem or 'it is LOCK_QUEUE itself'}", USAGE_ERROR)
    account = _Account()
    with report_if_interrupted(account.summary), redis_or_stop(settings), sync_client(settings) as client:
        watched = FleetNames.of(settings)
        members = read_fleet_state_now(client, watched).members
        taken = {queue for member in members for queue in member.queues} | {settings.LOCK_QUEUE}
        abandoned = abandoned_queues(client, taken, tag=settings.cluster_tag)
        if names:
            known = {each.queue: each for each in abandoned}
            chosen = [known.get(name) or _named(client, name, taken) for name in names]
        else:
            if not settings.cluster_tag:  # no stock Celery worker runs on a cluster
                _adopt_unacked(client, settings, account, taken, as_list=as_list)
            chosen = [each for each in abandoned if each.is_ours]
            account.left = [each for each in abandoned if not each.is_ours]
        for each in chosen:
            foreign = 0 if each.is_ours else count_foreign(client, Keys(each.queue))
            if foreign:
                fail(
                    f"{each.queue!r} also holds {plural(foreign, 'message')} of other tasks, which would come along; "
                    f"nothing of it was moved\n{account.summary()}"
                )
            moved = each.jobs if as_list else _adopt_queue(client, settings, Keys(each.queue))
            account.queues[each.queue] = moved
            account.adopted += moved
    if as_json:
        with report_if_interrupted(account.summary):
            sys.stdout.write(account.as_json() + "\n")
    for line in _lines(settings, account, as_list=as_list):
        typer.echo(printable(line), err=True)


def _named(client: Redis, name: str, taken: set[str]) -> Abandoned:
    if name in taken:
        fail(f"--queue {name!r}: workers take from it, so its jobs are lost to nobody", USAGE_ERROR)
    return Abandoned(name, count_jobs(client, Keys(name)), is_ours=False)


def _lines(settings: Settings, account: _Account, *, as_list: bool) -> Iterator[str]:
    done = "would be brought in" if as_list else "brought in"
    if account.unacked:
        yield f"{plural(account.unacked, 'job')} that stock Celery workers had not acknowledged {done}"
    for queue, jobs in account.queues.items():
        yield f"{plural(jobs, 'job')} of {queue} {done}"
    if account.kept:
        yield f"{plural(account.kept, 'job')} left to living workers, which said that they have them"
    if account.foreign:
        yield f"{plural(account.foreign, 'unacknowledged message')} of other tasks left in place"
    for left in account.left:
        option = f"--queue {shlex.quote(left.queue)}"
        yield f"{plural(left.jobs, 'job')} on {left.queue}, which none of our workers takes from: {option}"
    yield f"{plural(account.adopted, 'job')} {done} to {settings.LOCK_QUEUE} at {redis_address(settings)}"


def _adopt_unacked(client: Redis, settings: Settings, account: _Account, queues: set[str], *, as_list: bool) -> None:
    jobs: list[Unacked] = []
    for job in unacked_jobs(client, queues):
        if job is None:
            account.foreign += 1
        else:
            jobs.append(job)
    held = _held_by_the_living(settings) if jobs else frozenset()
    ours = [job for job in jobs if job.job_id not in held]
    account.kept = len(jobs) - len(ours)
    if as_list:
        account.unacked = len(ours)
        account.adopted += len(ours)
        return
    for priority in range(10):
        of_priority = [(job.tag, job.message) for job in ours if job.priority == priority]
        for start in range(0, len(of_priority), _BATCH):
            call = adopt_command(Keys(settings.LOCK_QUEUE), of_priority[start : start + _BATCH], priority=priority)
            answers: Any = client.execute_command(*call)  # type: ignore[no-untyped-call]  # no types for it
            account.unacked += sum(answers)
            account.adopted += sum(answers)


def _held_by_the_living(settings: Settings) -> frozenset[str]:
    """Return the ids of jobs that living Celery workers say they have; none if no worker answers in time."""
    ids: set[str] = set()
    # Celery's own control would use a pool of connections to the URL in CELERY_BROKER_URL.
    with (
        suppress(KombuError, RedisError, OSError),
        celery_app(settings).connection_for_write(connection.resolved_url(settings)) as broker,
    ):
        mailbox = Mailbox("celery", type="fanout", accept=["json"])(broker)
        for question in (
            "scheduled",
            "reserved",
            "active",
        ):  # in the order of a job's life, so that no job is missed between two questions
            answers = mailbox.multi_call(question, timeout=_ANSWER_SECONDS) or []
            requests = [request for answer in answers for reply in answer.values() for request in _requests(reply)]
            ids.update(str(request.get("id")) for request in requests)
    return frozenset(ids)


def _requests(reply: Any) -> list[dict[str, Any]]:
    """Return the requests in a reply. Those that wait for their ETA are nested in it, beside the ETA."""
    entries = [entry for entry in reply if isinstance(entry, dict)] if isinstance(reply, list) else []
    requests = [entry.get("request", entry) for entry in entries]
    return [request for request in requests if isinstance(request, dict)]


def _adopt_queue(client: Redis, settings: Settings, old: Keys) -> int:
    """Move all jobs of a queue; a job in flight there is moved once its lease has expired."""
    moved, new = 0, Keys(settings.LOCK_QUEUE)
    # The newest first, each to the end that workers take from. So they keep their order, and go before the others.
    for source, target in zip(
        (*old.priority_lists, old.arrived), (*new.priority_lists, new.priority_lists[0]), strict=True
    ):
        while True:
            with client.pipeline(transaction=False) as pipe:
                for _ in range(_BATCH):
                    pipe.lmove(source, target, "LEFT", "RIGHT")
                done = sum(message is not None for message in pipe.execute())
            moved += done
            if done < _BATCH:
                break
    for source, target in ((old.suspects, new.suspects), (old.retries, new.retries), (old.requeued, new.requeued)):
        refs: Any = client.lrange(source, 0, -1)
        for ref in refs:
            moved += _move(client, old, new, ref, source=source, target=target)
    now = client.time()[0] * 1000
    for source, target, until in ((old.delayed, new.delayed, "+inf"), (old.leases, new.leases, now)):
        due: Any = client.zrange(source, "-inf", until, byscore=True)
        for ref in due:
            moved += _move(client, old, new, ref, source=source, target=target)
    return moved + _adopt_held(client, settings, old, new)


def _adopt_held(client: Redis, settings: Settings, old: Keys, new: Keys) -> int:
    """Move the jobs on hold. The holds were the old fleet's: unless one is in force here too, its jobs go on."""
    members: Any = client.zrange(old.held, 0, -1)
    if members:
        # Workers look for such jobs once the controls have a version. This gives them one, and cancels no id.
        trail = Trail(settings.CONTROL_STREAM, settings.CONTROL_MAXLEN)
        client.execute_command(*cancel_command(new, trail, [], text="", ttl_ms=1, whole_text=True))  # type: ignore[no-untyped-call]  # no types for it
    return sum(_move(client, old, new, member, source=old.held, target=new.held) for member in members)


def _move(client: Redis, old: Keys, new: Keys, member: bytes, *, source: str, target: str) -> bool:
    """Move a job that has a record, together with the record; False if the job is gone."""
    ref = member.partition(b":")[2] if source == old.held else member
    name = ref.decode(errors="replace")
    record, there = (f"{keys.record_prefix}{name}" for keys in (old, new))
    is_list = source not in {old.delayed, old.leases, old.held}
    with client.pipeline(transaction=True) as pipe:
        while True:
            try:
                pipe.watch(record, source)  # type: ignore[no-untyped-call]  # redis-py has no types for it
                where: Any = pipe.lpos(source, name) if is_list else pipe.zscore(source, member)
                has_record = pipe.exists(record)
                deadline = pipe.zscore(old.deadlines, ref)
                if where is None:
                    return False
                pipe.multi()
                if is_list:
                    pipe.lrem(source, 1, name)
                else:
                    pipe.zrem(source, member)
                pipe.zrem(old.deadlines, ref)
                if has_record:
                    pipe.rename(record, there)
                    if is_list:
                        pipe.rpush(target, ref)
                    else:
                        pipe.zadd(target, {member: where})
                    if deadline is not None:
                        pipe.zadd(new.deadlines, {ref: deadline})
                    pipe.hincrby(old.counters, "taken", -1)
                    pipe.hincrby(new.counters, "taken", 1)
                pipe.execute()
            except WatchError:
                continue
            return bool(has_record)
