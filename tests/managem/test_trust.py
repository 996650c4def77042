"""The authorities that a host is verified against are those that the file holds now."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest
import trustme

from tasks.managem.trust import Trust
from tests.managem.client import MakeApi, fail_to_lock, lock
from tests.managem.raw_host import RawHost, answer, answering
from tests.managem.test_unreachable import server_tls

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """What SSL_CERT_FILE names."""
    path = tmp_path / "authorities.pem"
    monkeypatch.setenv("SSL_CERT_FILE", str(path))
    return path


@pytest.fixture(autouse=True)
def no_connection_is_used_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tasks.managem.connection.LIFE_SECONDS", (0.0, 0.0))


def write(path: Path, *authorities: trustme.CA) -> None:
    """Replace the file, as a mounted secret is replaced."""
    fresh = path.with_suffix(".new")
    fresh.write_bytes(b"".join(authority.cert_pem.bytes() for authority in authorities))
    fresh.replace(path)


def spoil(path: Path, content: bytes | None) -> None:
    """Write this into the file; None: take it away."""
    if content is None:
        path.unlink()
    else:
        path.write_bytes(content)


async def test_an_authority_that_is_added_to_the_file_is_trusted_without_a_restart(
    make_api: MakeApi, file: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    old, new = trustme.CA(), trustme.CA()
    write(file, old)
    tls = server_tls(old, "127.0.0.1")
    async with RawHost(answering(answer()), tls=tls) as host:
        api = make_api(host.url)
        assert (await lock(api)).status == 200
        assert caplog.messages == []

        write(file, old, new)
        assert (await lock(api)).status == 200
        new.issue_cert("127.0.0.1").configure_cert(tls)
        assert (await lock(api)).status == 200
        assert caplog.messages == ["authorities_read"]


async def test_an_authority_that_is_taken_out_of_the_file_is_trusted_no_more(make_api: MakeApi, file: Path) -> None:
    old, new = trustme.CA(), trustme.CA()
    write(file, old, new)
    async with RawHost(answering(answer()), tls=server_tls(old, "127.0.0.1")) as host:
        api = make_api(host.url)
        assert (await lock(api)).status == 200
        write(file, new)
        assert (await fail_to_lock(api)).detail.startswith("TLS: the certificate of 127.0.0.1")


@pytest.mark.parametrize("content", [None, b"", b"-----BEGIN CERTIFICATE-----\nhalf"])
async def test_while_the_file_is_missing_or_holds_no_certificate_the_last_ones_stay_and_that_is_said_once(
    make_api: MakeApi, file: Path, caplog: pytest.LogCaptureFixture, content: bytes | None
) -> None:
    authority, another = trustme.CA(), trustme.CA()
    write(file, authority)
    tls = server_tls(authority, "127.0.0.1")
    async with RawHost(answering(answer()), tls=tls) as host:
        api = make_api(host.url)
        spoil(file, content)
        for _ in range(3):
            assert (await lock(api)).status == 200
        assert caplog.messages == ["authorities_unusable"]
        assert vars(caplog.records[0])["file"] == str(file)

        another.issue_cert("127.0.0.1").configure_cert(tls)
        write(file, another)
        assert (await lock(api)).status == 200
        assert caplog.messages == ["authorities_unusable"]


def test_a_folder_of_authorities_is_looked_at_again_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SSL_CERT_FILE", raising=False)
    monkeypatch.setenv("SSL_CERT_DIR", f"{tmp_path}{os.pathsep}{tmp_path / 'missing'}")
    trust = Trust()
    context = trust.context()
    assert trust.context() is context

    (tmp_path / "12345678.0").write_bytes(trustme.CA().cert_pem.bytes())

    assert trust.context() is not context


async def test_a_host_that_no_longer_shows_a_trusted_certificate_keeps_no_connection_for_long(
    make_api: MakeApi, file: Path
) -> None:
    authority = trustme.CA()
    write(file, authority)
    tls = server_tls(authority, "127.0.0.1")
    async with RawHost(answering(answer()), tls=tls) as host:
        api = make_api(host.url)
        assert (await lock(api)).status == 200
        trustme.CA().issue_cert("127.0.0.1").configure_cert(tls)
        assert (await fail_to_lock(api)).kind == "unreachable"
