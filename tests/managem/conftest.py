"""Clients whose connections are closed behind every test, and an authority that they trust."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import trustme

from tasks.managem.client import ManagemApi
from tests.managem.client import TOKEN, MakeApi

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path


@pytest.fixture
async def make_api() -> AsyncIterator[MakeApi]:
    """Make clients, and close them."""
    apis: list[ManagemApi] = []

    def make(base_url: str, *, timeout_seconds: float = 5.0, concurrency: int = 10) -> ManagemApi:
        api = ManagemApi(
            base_url=base_url,
            token=lambda: TOKEN,
            timeout_seconds=timeout_seconds,
            concurrency=concurrency,
            user_agent="lock-worker/1.2.3",
        )
        apis.append(api)
        return api

    yield make
    for api in apis:
        await api.aclose()


@pytest.fixture
def authority(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> trustme.CA:
    """A certificate authority that the client trusts."""
    ca = trustme.CA()
    ca.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "ca.pem"))
    return ca
