"""What the README tells strangers to send is a job."""

from __future__ import annotations

import ast
import json
import re
from datetime import UTC, datetime
from pathlib import Path

from tasks.message import Accepted
from tasks.task_name import TASK_NAME
from worker.message.decode import decoder

README = (Path(__file__).parents[2] / "README.md").read_text("utf-8")


def test_the_message_for_other_languages_is_a_job() -> None:
    found = re.search(r"^LPUSH moderation\.lock '(.*)'$", README, re.MULTILINE)
    assert found is not None
    raw = found[1].encode()
    job = decoder(TASK_NAME)(raw, size=len(raw), now=datetime.now(UTC))
    assert isinstance(job, Accepted)
    assert (job.id, job.subject, job.job.rule_id) == (json.loads(raw)["headers"]["id"], "c-42", "off-platform-payment")


def test_its_python_can_be_read() -> None:
    blocks = re.findall(r"^```python\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)
    assert len(blocks) == 2
    for block in blocks:
        ast.parse(block)


def test_the_files_it_links_to_are_there() -> None:
    for target in re.findall(r"\]\(([^)]+)\)", README):
        assert (Path(__file__).parents[2] / target).exists(), target
