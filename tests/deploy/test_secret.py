"""The token as a Secret of Kubernetes: a folder whose links the kubelet turns to another folder."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

    from tests.system.stage import Stage


def lay(folder: Path, version: str, token: str) -> None:
    """Put a Secret into a folder as the kubelet does, or change it."""
    (folder / version).mkdir(parents=True)
    (folder / version / "token").write_text(f"{token}\n")
    (folder / "..data_tmp").symlink_to(version)
    (folder / "..data_tmp").rename(folder / "..data")
    if not (folder / "token").is_symlink():
        (folder / "token").symlink_to("..data/token")


def test_a_worker_uses_a_new_token_from_its_next_call_on_without_a_restart(stage: Stage, tmp_path: Path) -> None:
    folder = tmp_path / "secret"
    stage.api.token = "first-token"
    lay(folder, "..2026_1", "first-token")
    worker = stage.worker(API_TOKEN="", API_TOKEN_FILE=folder / "token")
    assert stage.outcome_of(stage.send("c-1")) == "locked"

    lay(folder, "..2026_2", "second-token")
    stage.api.token = "second-token"

    event = stage.event_of(stage.send("c-2"))
    assert (event["data"]["outcome"], event["data"]["attempts"]) == ("locked", 1)
    assert worker.lines("breaker_opened") == []


def test_a_worker_whose_secret_is_empty_ends_and_says_so(stage: Stage, tmp_path: Path) -> None:
    lay(tmp_path / "secret", "..2026_1", "")
    worker = stage.start(API_TOKEN="", API_TOKEN_FILE=tmp_path / "secret" / "token")

    assert worker.process.wait(20) != 0
    assert "API_TOKEN_FILE: holds no token: it is empty" in worker.log
