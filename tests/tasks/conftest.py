from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from celery import Celery

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture
def own_app() -> Iterator[Celery]:
    """An app for jobs that are run in-process; its broker does not exist."""
    with Celery("my-service", broker="redis://127.0.0.1:1/0") as app:
        yield app
