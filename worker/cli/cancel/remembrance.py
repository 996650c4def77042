"""For how long job ids are remembered as cancelled."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from settings import Settings

#: The shortest time, in seconds.
_LEAST_SECONDS = 86_400


def remember_seconds(settings: Settings, seconds: int | None) -> int:
    """Return the seconds: as long as a job can live once it was taken, a day, or what ``--for`` says: the longest."""
    return max(round(settings.JOB_MAX_AGE_SECONDS), _LEAST_SECONDS, seconds or 0)
