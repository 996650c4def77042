"""Checks of the settings by themselves: that they load, and that no two of them fight."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import settings as options
from worker.cli.doctor.check import ok, problem, warning
from worker.cli.durations import duration
from worker.observe import setting_names
from worker.runtime.open_files import shortage

if TYPE_CHECKING:
    from collections.abc import Iterator

    from settings import Settings
    from worker.cli.doctor.check import Check

#: A lease that is longer than a call's timeout by less than this share leaves late renewals no time.
_LEASE_SHARE = 1.2
#: Of SHUTDOWN_SECONDS this share, and so many seconds at most, is kept for releasing what has not finished.
_RELEASE_SHARE, _RELEASE_SECONDS = 0.2, 3.0
_LONG_LEASE_SECONDS = 300.0


def load_checks() -> tuple[Settings | None, list[Check]]:
    """Load the settings as a worker does, or without a token where only that is wrong; None: they cannot be used."""
    found: list[Check] = []
    loaded: Settings | None = None
    try:
        loaded = options.load(need_token=True)
        found.append(ok("settings", f"the settings are valid; {_changed(loaded)}"))
    except options.SettingsError as error:
        found += [_wrong(line) for line in str(error).splitlines()[1:]]
        loaded = _without_token()
    for odd in (*setting_names.misspelt(), *setting_names.odd_values()):
        mend = "Correct its name or value, or unset it if it belongs to another program."
        found.append(warning("setting_names", str(odd), mend))
    return loaded, found


def _wrong(line: str) -> Check:
    text = line.removeprefix("  - ")
    return problem("settings", text, f"A worker does not start: correct {text.partition(':')[0]}.")


def _without_token() -> Settings | None:
    try:
        return options.load(need_token=False)
    except options.SettingsError:
        return None


def _changed(settings: Settings) -> str:
    count = sum(bool(os.environ.get(name)) for name in type(settings).model_fields)
    return f"{count} of them {'is' if count == 1 else 'are'} not the default"


def fight_checks(settings: Settings) -> Iterator[Check]:
    """Yield what is wrong with settings that are valid each by itself, or one check if nothing is."""
    found = [
        *_lease(settings),
        *_shutdown(settings),
        *_retries(settings),
        *_waits(settings),
        *_open_files(settings),
        *_dry_run(settings),
    ]
    yield from found or [ok("values", "no two values contradict each other")]


def _lease(settings: Settings) -> Iterator[Check]:
    lease, timeout = settings.LEASE_SECONDS, settings.ATTEMPT_TIMEOUT_SECONDS
    if lease < timeout * _LEASE_SHARE:
        yield warning(
            "lease",
            f"LEASE_SECONDS ({lease:g}) is hardly longer than ATTEMPT_TIMEOUT_SECONDS ({timeout:g}): where Redis is "
            "slow for a moment, a job is taken over in the middle of its call, and called twice.",
            f"Set LEASE_SECONDS to {timeout * 2:g} or more.",
        )
    if lease > _LONG_LEASE_SECONDS:
        yield warning(
            "lease",
            f"LEASE_SECONDS ({lease:g}): the jobs of a pod that is killed stand still for {duration(lease)}.",
            "Set it to some times ATTEMPT_TIMEOUT_SECONDS, such as 30.",
        )


def _shutdown(settings: Settings) -> Iterator[Check]:
    grace = settings.SHUTDOWN_SECONDS - min(_RELEASE_SECONDS, settings.SHUTDOWN_SECONDS * _RELEASE_SHARE)
    if grace < settings.ATTEMPT_TIMEOUT_SECONDS:
        yield warning(
            "shutdown",
            f"SHUTDOWN_SECONDS ({settings.SHUTDOWN_SECONDS:g}) leaves a call {grace:g} s to end after SIGTERM, and "
            f"ATTEMPT_TIMEOUT_SECONDS is {settings.ATTEMPT_TIMEOUT_SECONDS:g}: a slow call is cut off, and made again.",
            f"Set SHUTDOWN_SECONDS to {settings.ATTEMPT_TIMEOUT_SECONDS + _RELEASE_SECONDS:g} or more, and the pod's "
            "grace period longer than that.",
        )


def _retries(settings: Settings) -> Iterator[Check]:
    horizon, age = retry_horizon(settings), settings.JOB_MAX_AGE_SECONDS
    if age and horizon > age:
        yield warning(
            "retries",
            f"MAX_ATTEMPTS ({settings.MAX_ATTEMPTS}) with their waits can take {duration(horizon)}, and "
            f"JOB_MAX_AGE_SECONDS ends a job after {duration(age)}: it may never come to its last attempts.",
            "Lower MAX_ATTEMPTS or RETRY_MAX_DELAY_SECONDS, or raise JOB_MAX_AGE_SECONDS.",
        )


def _waits(settings: Settings) -> Iterator[Check]:
    longest = settings.RETRY_MAX_DELAY_SECONDS + settings.ATTEMPT_TIMEOUT_SECONDS
    if longest > settings.DEDUPLICATE_SECONDS:
        yield warning(
            "duplicates",
            f"A job may wait {duration(settings.RETRY_MAX_DELAY_SECONDS)} for its next call (RETRY_MAX_DELAY_SECONDS), "
            f"and its id is kept for {duration(settings.DEDUPLICATE_SECONDS)} (DEDUPLICATE_SECONDS): meanwhile the "
            "same id may come to stand for another conversation.",
            "Raise DEDUPLICATE_SECONDS above the longest wait, or lower RETRY_MAX_DELAY_SECONDS.",
        )


def retry_horizon(settings: Settings) -> float:
    """Return how long a job's attempts can take with their waits, in seconds, if the API asks for no longer ones."""
    base, longest = settings.RETRY_BASE_SECONDS, settings.RETRY_MAX_DELAY_SECONDS
    waits = sum(min(longest, base * 2.0 ** min(number, 60)) for number in range(settings.MAX_ATTEMPTS - 1))
    return waits + settings.MAX_ATTEMPTS * settings.ATTEMPT_TIMEOUT_SECONDS


def _open_files(settings: Settings) -> Iterator[Check]:
    lacking = shortage(settings.CONCURRENCY, 1)
    if lacking is not None:
        yield problem("open_files", f"CONCURRENCY: {lacking}", "A worker with this limit does not start.")


def _dry_run(settings: Settings) -> Iterator[Check]:
    if settings.DRY_RUN:
        yield warning(
            "dry_run",
            "DRY_RUN is set: no job is called, and each ends as would_lock.",
            "Unset it to lock conversations.",
        )
    elif settings.RULES_DRY_RUN:
        yield warning(
            "dry_run",
            f"RULES_DRY_RUN is set: jobs of these rules are not called: {settings.RULES_DRY_RUN[:200]}.",
            "Take a rule out of it to lock its conversations.",
        )
