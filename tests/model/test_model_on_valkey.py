"""The model's runs on Valkey: a file for each server, because files are what the tests' processes share out."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.conftest import binary_of
from tests.model.runs import run_on

if TYPE_CHECKING:
    from sandbox.server_binaries import ServerBinary


@pytest.fixture(scope="session")
def server_binary() -> ServerBinary:
    return binary_of("valkey")


def test_whatever_three_workers_do_and_do_not_do_each_job_ends_with_one_event(redis_url: str) -> None:
    run_on(redis_url)
