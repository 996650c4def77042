"""What the metrics show before anything has happened."""

from __future__ import annotations

import json

from tests.cli.terminal import python

#: Its label is the name of a consumer group, and no worker knows these before it has read the results stream.
UNKNOWN_AT_THE_START = {"lock_worker_results_group_lag"}

_OF_A_NEW_PROCESS = """
import json
from worker.observe.metrics_page import OF_A_WORKER

found = {
    family.name: [[sample.labels, sample.value] for sample in family.samples]
    for family in OF_A_WORKER.collect()
    if family.name.startswith("lock_worker_")
}
print(json.dumps(found))
"""


def test_every_labelled_series_stands_at_0_from_the_start() -> None:
    found = json.loads(python(_OF_A_NEW_PROCESS))

    assert {name for name, samples in found.items() if not samples} == UNKNOWN_AT_THE_START
    del found["lock_worker_build_info"]
    assert {name for name, samples in found.items() if any(value for _, value in samples)} == set()


def test_an_option_without_effect_has_a_series_before_the_first_message_with_it() -> None:
    samples = json.loads(python(_OF_A_NEW_PROCESS))["lock_worker_options_ignored"]

    assert [labels["option"] for labels, _ in samples] == [
        "link", "link_error", "chain", "chord", "timelimit", "reply_to", "stamps",
    ]  # fmt: skip
