"""What a run of the benchmark measures, and where its results go."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.__main__ import PUBLISHED, read_options


def test_a_run_of_everything_replaces_the_published_results() -> None:
    assert read_options([]).out == PUBLISHED


@pytest.mark.parametrize(
    "smaller",
    [["--quick"], ["--only", "bare"], ["--delays", "50"], ["--rounds", "1"], ["--seconds", "1"], ["--no-latency"]],
)
def test_a_smaller_run_leaves_the_published_results_as_they_are(smaller: list[str]) -> None:
    assert read_options(smaller).out != PUBLISHED
    assert read_options([*smaller, "--out", "here.json"]).out == Path("here.json")


def test_a_quick_run_measures_the_delays_that_are_asked_for() -> None:
    options = read_options(["--quick", "--delays", "0", "50"])

    assert (options.delays, options.rounds) == ([0, 50], 1)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--out", "{folder}"], "is a folder; name a file in it"),
        (["--tables", "--out", "{folder}/absent.json"], "run without --tables first"),
        (["--only", "nobody"], "no row's name holds nobody"),
        (["--rounds", "0"], "must be a whole number, 1 or more, and is 0"),
        (["--idle-jobs", "-3"], "must be a whole number, 1 or more, and is -3"),
        (["--delays", "50", "x"], "must be a whole number, 0 or more, and is x"),
    ],
)
def test_a_wrong_argument_is_named_before_anything_is_measured(
    arguments: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as stopped:
        read_options([argument.format(folder=tmp_path) for argument in arguments])

    assert stopped.value.code == 2
    assert message in capsys.readouterr().err
