"""One worker with a single slot for all tests of a module, each of which has a conversation of its own."""

from __future__ import annotations

import uuid
from typing import TYPE_CHECKING

import pytest

from sandbox.script import Script
from tests.system.answers.scripted import LONGEST_WAIT_SECONDS, MAX_ATTEMPTS
from tests.system.stage import TOKEN, Stage, WorkerProcess

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture(scope="module")
def stage(module_stage: Stage) -> Stage:
    """One system for all answers."""
    return module_stage


@pytest.fixture(scope="module")
def token_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("secret") / "token"
    path.write_text(TOKEN)
    return path


@pytest.fixture(scope="module", autouse=True)
def worker(stage: Stage, token_file: Path) -> WorkerProcess:
    return stage.worker(
        CONCURRENCY=1,
        MAX_ATTEMPTS=MAX_ATTEMPTS,
        ATTEMPT_TIMEOUT_SECONDS=1,
        RETRY_MAX_DELAY_SECONDS=LONGEST_WAIT_SECONDS,
        BREAKER_FAILURES=0,  # the failures of one test are no outage for the next
        API_TOKEN="",
        API_TOKEN_FILE=token_file,
    )


@pytest.fixture
def conversation(stage: Stage) -> Iterator[str]:
    """A conversation that no other test has called. Afterwards the API is well again, and no job is left."""
    yield f"c-{uuid.uuid4()}"
    stage.api.script = Script()
    stage.wait_idle()
