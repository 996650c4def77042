"""The release before, installed once for a module."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.system.conftest import server_binary, stage  # noqa: F401 - fixtures of this folder too
from tests.upgrade.release import NoReleaseError, Release, install

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture(scope="module")
def release(tmp_path_factory: pytest.TempPathFactory) -> Release:
    """The release before this version."""
    folder: Path = tmp_path_factory.mktemp("release")
    try:
        return install(folder)
    except NoReleaseError as error:
        pytest.skip(str(error))
