"""The image, built once for all tests of it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.image.containers import Containers, missing_programs, skip_or_fail

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture(scope="session")
def containers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Containers]:
    """A store with the built image."""
    if missing := missing_programs():
        skip_or_fail(f"these tests need {', '.join(missing)}")
    store = Containers(tmp_path_factory.mktemp("containers"))
    try:
        store.build()
        yield store
    finally:
        store.close()
