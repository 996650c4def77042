"""The sections of the dashboard.

They follow the questions of an operator: is it well, what waits, what gets done, how does the API answer, what is
called again, what holds the fleet back, and then the places where trouble begins.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from deploy.grafana.panels import Query, graph, number

if TYPE_CHECKING:
    from grafana_foundation_sdk.builders import stat, timeseries


@dataclass(frozen=True, slots=True)
class Section:
    """A row of the dashboard and its panels."""

    title: str
    panels: tuple[stat.Panel | timeseries.Panel, ...]


def _is_it_well() -> Section:
    alerts = Query(
        'sum by (alertname, severity) (ALERTS{alertname=~"LockWorker.*", alertstate="firing", job=~"$job|"})',
        "{{severity}}: {{alertname}}",
    )
    return Section(
        "Is it well?",
        (
            *_numbers(),
            graph(
                "Alerts",
                "The alerts that fire; docs/runbook.md says what to do about each.",
                alerts, width=24, is_stacked=True,
            ),
        ),
    )  # fmt: skip


def _numbers() -> tuple[stat.Panel, ...]:
    return (
        number(
            "Workers",
            "Workers that are registered in Redis. None and a backlog: start some.",
            Query('max(lock_worker_workers{job=~"$job"})'),
            red_below=1, words={"0": "none"},
        ),
        number(
            "Ready jobs",
            "Jobs that a worker could take now.",
            Query('max(lock_worker_queue_jobs{job=~"$job", state="ready"})'),
        ),
        number(
            "Oldest ready job",
            "How long it has waited. This is how late locks come.",
            Query('max(lock_worker_queue_oldest_ready_seconds{job=~"$job"})'),
            unit="s", red_from=600,
        ),
        number(
            "Finished",
            "Jobs that end in a second, whatever their outcome.",
            Query('sum(rate(lock_worker_jobs_finished_total{job=~"$job"}[$__rate_interval]))'),
            unit="ops", words={"0": "none"},
        ),
        number(
            "Failed in 15 min",
            "The share of jobs that ended as rejected, refused, exhausted or poisoned.",
            Query(
                'sum(increase(lock_worker_jobs_finished_total{job=~"$job", '
                'outcome=~"rejected|refused|exhausted|poisoned"}[15m]))'
                ' / (sum(increase(lock_worker_jobs_finished_total{job=~"$job"}[15m])) > 0)'
            ),
            unit="percentunit", red_from=0.1,
        ),
        number(
            "API",
            "Whether a worker holds jobs back, because the API is down or refuses the token.",
            Query('max(lock_worker_breaker_open{job=~"$job"})'),
            red_from=1, words={"0": "well", "1": "held back"},
        ),
        number(
            "Fleet",
            "Whether the whole fleet is paused, by the API or by an operator.",
            Query('max(lock_worker_fleet_paused{job=~"$job"})'),
            red_from=1, words={"0": "takes jobs", "1": "paused"},
        ),
        number(
            "Without Redis",
            "Processes that have heard nothing from Redis for 10 s.",
            Query('count(lock_worker_redis_up{job=~"$job"}) - sum(lock_worker_redis_up{job=~"$job"})'),
            red_from=1, words={"0": "none"},
        ),
    )  # fmt: skip


def _backlog() -> Section:
    return Section(
        "Backlog",
        (
            graph(
                "Jobs by state",
                "Due jobs that stay: no worker makes them ready. Workable now: what to scale on.",
                Query('max by (state) (lock_worker_queue_jobs{job=~"$job"})', "{{state}}"),
                Query('max(lock_worker_queue_workable{job=~"$job"})', "workable now"),
            ),
            graph(
                "Age of the oldest ready job",
                "It grows while jobs arrive faster than they are taken.",
                Query('max(lock_worker_queue_oldest_ready_seconds{job=~"$job"})', "oldest"),
                unit="s",
            ),
            graph(
                "Lateness",
                "Of jobs with an eta: from that time until a worker started them. Other jobs are not in it.",
                *_quantiles("lock_worker_job_lateness_seconds"),
                unit="s", width=24,
            ),
        ),
    )  # fmt: skip


def _throughput() -> Section:
    return Section(
        "Throughput",
        (
            graph(
                "Finished by outcome",
                "Result events in a second.",
                Query('sum by (outcome) (rate(lock_worker_jobs_finished_total{job=~"$job"}[$__rate_interval])) > 0',
                      "{{outcome}}"),
                unit="ops", is_stacked=True,
            ),
            graph(
                "Seconds from the first take to the event",
                "Waits for retries are included.",
                *_quantiles("lock_worker_job_seconds"),
                unit="s",
            ),
            graph(
                "Duplicates dropped",
                "Copies of jobs that had ended. Many: a producer sends again what it has sent.",
                Query('sum(rate(lock_worker_duplicates_dropped_total{job=~"$job"}[$__rate_interval]))', "duplicates"),
                unit="ops",
            ),
            graph(
                "Options without effect",
                "Celery options of messages that this worker ignores, such as link or chains.",
                Query('sum by (option) (rate(lock_worker_options_ignored_total{job=~"$job"}[$__rate_interval]))',
                      "{{option}}"),
                unit="ops",
            ),
        ),
    )  # fmt: skip


def _api() -> Section:
    return Section(
        "API",
        (
            graph(
                "Calls by class of answer",
                "no_answer: the connection failed, or the call took too long.",
                Query('sum by (status_class) (rate(lock_worker_api_calls_total{job=~"$job"}[$__rate_interval]))',
                      "{{status_class}}"),
                unit="ops", is_stacked=True,
            ),
            graph(
                "Seconds of a call",
                "A slow API needs more slots: as many as calls a second times their seconds.",
                *_quantiles("lock_worker_api_call_seconds"),
                unit="s",
            ),
            graph(
                "Answers in another shape than documented",
                "By the field that deviates; the conversations are locked all the same.",
                Query('sum by (field) (rate(lock_worker_answer_drift_total{job=~"$job"}[$__rate_interval])) > 0',
                      "{{field}}"),
                unit="ops", width=24,
            ),
        ),
    )  # fmt: skip


def _waits() -> Section:
    return Section(
        "Retries and delays",
        (
            graph(
                "Retries by reason",
                "Calls that failed and will be made again.",
                Query('sum by (reason) (rate(lock_worker_job_retries_total{job=~"$job"}[$__rate_interval]))',
                      "{{reason}}"),
                unit="ops", is_stacked=True,
            ),
            graph(
                "Delays by reason",
                "Jobs put aside before a call: their eta has not come, or calls are held back.",
                Query('sum by (reason) (rate(lock_worker_jobs_delayed_total{job=~"$job"}[$__rate_interval]))',
                      "{{reason}}"),
                unit="ops", is_stacked=True,
            ),
            graph(
                "Jobs on hold",
                "Those that wait for a release; and in each step of the graph, jobs that were set aside, and rules "
                "that went above their limit.",
                Query('max(lock_worker_queue_jobs{job=~"$job", state="held"})', "on hold now"),
                Query('sum(increase(lock_worker_jobs_held_total{job=~"$job"}[$__rate_interval]))', "set aside"),
                Query('sum(increase(lock_worker_rules_held_total{job=~"$job"}[$__rate_interval]))',
                      "rules above their limit"),
                width=24,
            ),
        ),
    )  # fmt: skip


def _held_back() -> Section:
    return Section(
        "What holds the fleet back",
        (
            graph(
                "Processes with an open breaker",
                "They take no jobs but probes, until the API answers or accepts the token.",
                Query('sum by (reason) (lock_worker_breaker_open{job=~"$job"})', "{{reason}}"),
                width=8,
            ),
            graph(
                "Pauses",
                "1 while no worker takes a job, by what asked for it.",
                Query('max by (by) (lock_worker_fleet_paused{job=~"$job"})', "by {{by}}"),
                width=8,
            ),
            graph(
                "Calls and their limit",
                "The limit follows from the API's refusals; 0 means none.",
                Query('sum(rate(lock_worker_api_calls_total{job=~"$job"}[$__rate_interval]))', "calls"),
                Query('max(lock_worker_fleet_calls_per_second_limit{job=~"$job"})', "limit"),
                unit="ops", width=8,
            ),
        ),
    )  # fmt: skip


def _pods() -> Section:
    return Section(
        "Pods",
        (
            graph(
                "Slots in use",
                "Jobs in flight as a share of the slots. All are full and the API is well: add workers or slots.",
                Query('lock_worker_jobs_in_flight{job=~"$job"} / lock_worker_concurrency{job=~"$job"}', "{{instance}}"),
                unit="percentunit",
            ),
            graph(
                "Trouble of workers",
                "Jobs lost to another worker, jobs of dead workers, and errors of the worker itself.",
                Query('sum(increase(lock_worker_leases_lost_total{job=~"$job"}[$__rate_interval]))', "leases lost"),
                Query('sum(increase(lock_worker_jobs_recovered_total{job=~"$job"}[$__rate_interval]))', "recovered"),
                Query('sum(increase(lock_worker_job_errors_total{job=~"$job"}[$__rate_interval]))', "errors"),
            ),
            graph(
                "CPU of the processes",
                "Cores that each process uses; one is the most.",
                Query('rate(process_cpu_seconds_total{job=~"$job"}[$__rate_interval])', "{{instance}}"),
                width=8,
            ),
            graph(
                "Memory of the processes",
                "Resident memory of each process.",
                Query('process_resident_memory_bytes{job=~"$job"}', "{{instance}}"),
                unit="bytes", width=8,
            ),
            graph(
                "Versions and settings",
                "Processes of each version, and settings in which the workers differ and must not.",
                Query('count by (version) (lock_worker_build_info{job=~"$job"})', "version {{version}}"),
                Query('max(lock_worker_settings_differ{job=~"$job"})', "settings that differ"),
                width=8,
            ),
        ),
    )  # fmt: skip


def _redis() -> Section:
    return Section(
        "Redis",
        (
            graph(
                "Memory of Redis",
                "A full Redis refuses new jobs. The maximum is 0 where the server has none.",
                Query('max(lock_worker_redis_memory_used_bytes{job=~"$job"})', "used"),
                Query('max(lock_worker_redis_memory_max_bytes{job=~"$job"})', "maxmemory"),
                unit="bytes",
            ),
            graph(
                "Heard from Redis",
                "1 for each process that has heard from Redis in the last 10 s.",
                Query('lock_worker_redis_up{job=~"$job"}', "{{instance}}"),
            ),
        ),
    )  # fmt: skip


def _results() -> Section:
    return Section(
        "Results and their consumers",
        (
            graph(
                "Events not delivered to a consumer group",
                "A group whose line reaches the number of events in a full stream loses the oldest ones.",
                Query('max by (group) (lock_worker_results_group_lag{job=~"$job"})', "{{group}}"),
                Query('max(lock_worker_results_stream_events{job=~"$job"})', "events in the stream"),
            ),
            graph(
                "Age of the oldest result",
                "A consumer that is down for longer loses events once the stream is full.",
                Query('max(lock_worker_results_oldest_seconds{job=~"$job"})', "oldest"),
                unit="s",
            ),
            graph(
                "Fill of the results stream",
                "A full stream is usual: each new event removes an old one.",
                Query('max(lock_worker_results_stream_events{job=~"$job"})'
                      ' / max(lock_worker_results_stream_events_max{job=~"$job"})', "by events"),
                Query('max(lock_worker_results_stream_bytes{job=~"$job"})'
                      ' / max(lock_worker_results_stream_bytes_max{job=~"$job"})', "by bytes"),
                unit="percentunit", width=24,
            ),
        ),
    )  # fmt: skip


def _dead_letters() -> Section:
    return Section(
        "Dead letters",
        (
            graph(
                "Dead letters",
                "Jobs that failed, kept with their messages. `lock-worker replay` sends them again.",
                Query('max(lock_worker_dead_letters{job=~"$job"})', "dead letters"),
                Query('max(lock_worker_dead_letters_max{job=~"$job"})', "at most"),
            ),
            graph(
                "Jobs that failed, by outcome",
                "In each step of the graph.",
                Query(
                    'sum by (outcome) (increase(lock_worker_jobs_finished_total{job=~"$job", '
                    'outcome=~"rejected|refused|exhausted|poisoned"}[$__rate_interval]))',
                    "{{outcome}}",
                ),
                is_stacked=True,
            ),
        ),
    )  # fmt: skip


def _quantiles(histogram: str) -> tuple[Query, ...]:
    buckets = f'sum by (le) (rate({histogram}_bucket{{job=~"$job"}}[$__rate_interval]))'
    return tuple(Query(f"histogram_quantile({share}, {buckets})", f"p{share * 100:.0f}") for share in (0.5, 0.95, 0.99))


def sections() -> tuple[Section, ...]:
    """Return all sections in their order."""
    return (
        _is_it_well(), _backlog(), _throughput(), _api(), _waits(), _held_back(), _pods(), _redis(), _results(),
        _dead_letters(),
    )  # fmt: skip
