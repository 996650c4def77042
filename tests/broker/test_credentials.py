"""The password file is read without blocking the loop that renews the leases."""

from __future__ import annotations

import asyncio
import os
import threading
from typing import TYPE_CHECKING

import pytest

from worker.broker.credentials import Credentials
from worker.broker.refusals import PasswordFileError

if TYPE_CHECKING:
    from pathlib import Path


async def test_a_password_file_that_hangs_does_not_hold_up_the_loop(tmp_path: Path) -> None:
    """A FIFO blocks its reader until somebody writes, as a file of a mount that hangs does."""
    fifo = tmp_path / "password"
    os.mkfifo(fifo)
    credentials = Credentials("app", None, fifo)

    login = asyncio.create_task(credentials.get_credentials_async())
    await asyncio.sleep(0)  # the loop goes on
    writer = threading.Thread(target=fifo.write_text, args=("secret",))
    writer.start()

    assert await login == ("app", "secret")
    writer.join()
    assert "secret" not in repr(credentials)


async def test_a_password_file_that_is_gone_is_named(tmp_path: Path) -> None:
    credentials = Credentials(None, None, tmp_path / "gone")

    with pytest.raises(PasswordFileError, match="REDIS_PASSWORD_FILE: "):
        await credentials.get_credentials_async()
