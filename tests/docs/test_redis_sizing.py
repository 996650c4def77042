"""The page on the size of Redis reckons with the defaults, with the figures of the other pages, and without a slip."""

from __future__ import annotations

import re
from pathlib import Path

from settings import Settings

FOLDER = Path(__file__).parents[2] / "docs"
PAGE = (FOLDER / "redis-sizing.md").read_text("utf-8")
REDIS = (FOLDER / "redis.md").read_text("utf-8")
COMPOSE = (FOLDER.parent / "deploy" / "compose" / "production.yml").read_text("utf-8")
JOBS_PER_SECOND, OUTAGE_SECONDS, SUBSCRIBERS = 100, 3600, 2
BYTES_OF_EVENT = 2300


def default(name: str) -> int:
    return int(Settings.model_fields[name].default)


def told(row: str) -> int:
    """The megabytes in the last cell of a row."""
    found = re.search(rf"^\| \**`?{re.escape(row)}.* \**(\d+) MB\** \|$", PAGE, re.MULTILINE)
    assert found is not None, row
    return int(found[1])


def test_each_row_of_the_example_is_what_its_formula_gives() -> None:
    assert "1.5 kB where it is delayed" in REDIS
    assert "209 MB a million" in REDIS
    assert "pubsub 8mb 2mb 10" in COMPOSE

    assert told("Jobs that wait") == JOBS_PER_SECOND * OUTAGE_SECONDS * 1.5 / 1000
    assert told("Results") == round(default("RESULTS_MAX_BYTES") / 1e6)
    assert told("Dead letters") == round(default("DEAD_MAX_BYTES") / 1e6)
    assert told("Remembered job ids") == round(JOBS_PER_SECOND * default("DEDUPLICATE_SECONDS") * 209 / 1e6)
    assert told("Subscribers") == SUBSCRIBERS * 8


def test_the_example_adds_up_to_the_memory_of_the_compose_file() -> None:
    rows = ("Jobs that wait", "Results", "Dead letters", "Remembered job ids", "Subscribers", "The rest")

    assert told("Sum") == sum(map(told, rows))
    assert told("maxmemory") == round(told("Sum") / 0.8)
    assert told("maxmemory") * 1e6 <= 1024**3
    assert "- --maxmemory\n      - 1gb\n" in COMPOSE


def test_consumers_have_the_time_that_the_page_says() -> None:
    seconds = min(default("RESULTS_MAXLEN"), default("RESULTS_MAX_BYTES") / BYTES_OF_EVENT) / JOBS_PER_SECOND

    assert f"goes back {seconds // 60:.0f}\nminutes" in PAGE
    assert f"{BYTES_OF_EVENT / 1000} kB for an event of a usual conversation" in REDIS
    events = JOBS_PER_SECOND * 3600
    assert f"`RESULTS_MAXLEN={events}` and `RESULTS_MAX_BYTES={events * BYTES_OF_EVENT}`" in PAGE
