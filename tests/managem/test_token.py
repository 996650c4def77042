"""Where each call's bearer token comes from: a setting, or a file that may change, and be unreadable, at any time."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from pydantic import SecretStr

from tasks.managem.token import TokenFile, token_source

if TYPE_CHECKING:
    from pathlib import Path

UNUSABLE = {
    "two words": b"new-secret token",
    "two lines": b"new-secret\ntoken",
    "a control character": b"new-secret\x00",
    "not ASCII": "new-secret-é".encode(),
    "not UTF-8": b"new-secret-\xff",
}


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "token"
    path.write_text("first\n")
    return path


def test_a_token_that_was_given_is_the_token() -> None:
    assert token_source(SecretStr("given"), None)() == "given"


def test_a_token_in_a_file_is_read_without_the_blanks_around_it(file: Path) -> None:
    file.write_text("\n  first \r\n")
    assert token_source(None, file)() == "first"


def test_there_must_be_a_token_or_a_file() -> None:
    with pytest.raises(ValueError, match="neither a token nor a file"):
        token_source(None, None)


def test_a_file_that_is_written_anew_gives_its_new_token_at_the_next_call(file: Path) -> None:
    token = TokenFile(file)
    assert token() == "first"
    file.write_text("second-token")
    assert token() == "second-token"


def test_a_file_that_another_takes_the_place_of_gives_the_other_token(file: Path, tmp_path: Path) -> None:
    # As a mounted secret of Kubernetes changes: a link is turned to another folder. Size and time may be the same.
    token, other = TokenFile(file), tmp_path / "other"
    assert token() == "first"
    other.write_text("again\n")
    other.replace(file)
    assert token() == "again"


def test_a_file_that_does_not_change_is_not_read_again(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    token = TokenFile(file)
    assert token() == "first"
    monkeypatch.setattr(type(file), "read_text", lambda *_: pytest.fail("the file was read again"))
    assert [token() for _ in range(3)] == ["first"] * 3


def test_while_the_file_is_empty_the_last_token_stays(file: Path) -> None:
    token = TokenFile(file)
    assert token() == "first"
    file.write_text(" \n")
    assert token() == "first"
    file.write_text("second-token")
    assert token() == "second-token"


def test_while_the_file_is_missing_the_last_token_stays_and_that_is_said_once(
    file: Path, caplog: pytest.LogCaptureFixture
) -> None:
    token = TokenFile(file)
    assert token() == "first"
    file.unlink()
    assert [token() for _ in range(3)] == ["first"] * 3
    assert caplog.messages == ["token_file_unusable"]
    file.write_text("second-token")
    assert token() == "second-token"
    file.unlink()
    assert token() == "second-token"
    assert caplog.messages == ["token_file_unusable"] * 2


def test_a_file_that_is_usable_again_is_said_so(file: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    token = TokenFile(file)
    assert token() == "first"
    file.unlink()
    assert token() == "first"
    file.write_text("second-token")

    assert [token() for _ in range(3)] == ["second-token"] * 3

    assert caplog.messages == ["token_file_unusable", "token_file_usable"]
    assert {record.__dict__["path"] for record in caplog.records} == {str(file)}


def told(file: Path, caplog: pytest.LogCaptureFixture) -> dict[str, object]:
    """The log line of a file that is unusable now."""
    TokenFile(file)()
    (record,) = caplog.records
    return vars(record)


def test_the_line_names_the_file_the_problem_and_what_to_do(file: Path, caplog: pytest.LogCaptureFixture) -> None:
    file.unlink()

    line = told(file, caplog)

    assert (line["path"], line["problem"]) == (str(file), "cannot be read: No such file or directory")
    assert "API_TOKEN_FILE" in str(line["advice"])


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b" \n", "is empty"),
        (b"new-secret token", "holds more than visible ASCII characters without blanks"),
        (b"new-secret-\xff", "is not UTF-8"),
    ],
)
def test_the_problem_says_nothing_of_what_the_file_holds(
    file: Path, caplog: pytest.LogCaptureFixture, content: bytes, problem: str
) -> None:
    file.write_bytes(content)

    assert told(file, caplog)["problem"] == problem


@pytest.mark.parametrize("content", UNUSABLE.values(), ids=UNUSABLE.keys())
def test_what_no_header_can_carry_is_no_token_so_the_last_one_stays_and_that_is_said_once(
    content: bytes, file: Path, caplog: pytest.LogCaptureFixture
) -> None:
    token = TokenFile(file)
    assert token() == "first"
    file.write_bytes(content)
    assert [token() for _ in range(3)] == ["first"] * 3
    assert caplog.messages == ["token_file_unusable"]
    assert all("new-secret" not in repr(vars(record)) for record in caplog.records)
    file.write_text("second-token")
    assert token() == "second-token"


def test_a_file_that_comes_back_as_it_was_is_no_trouble(file: Path, tmp_path: Path) -> None:
    token = TokenFile(file)
    assert token() == "first"
    file.rename(tmp_path / "away")
    assert token() == "first"
    (tmp_path / "away").rename(file)
    assert token() == "first"
