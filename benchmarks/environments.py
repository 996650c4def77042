"""A virtual environment for each queue, since their requirements conflict: made at the first use, from pinned hashes.

    python -m benchmarks.environments           # make all that are missing
    python -m benchmarks.environments --lock    # resolve their requirements anew

What the job shares with the worker is held at the versions of ``requirements.lock``, unless a queue cannot live with
one of them (`_FREE`).
"""

from __future__ import annotations

import argparse
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).parent
ROOT = HERE.parent
ENVIRONMENTS = HERE / ".envs"
REQUIREMENTS = HERE / "peers" / "requirements"

#: Packages that a queue wants in another version than the worker.
_FREE = {"arq": {"redis"}, "saq": {"redis"}}
_PINNED = re.compile(r"^([A-Za-z0-9._-]+)==([^ ;\\]+)", re.MULTILINE)
_UV = (sys.executable, "-m", "uv", "--quiet")


class EnvironmentFailedError(Exception):
    """An environment could not be made; the message is what uv said."""


def names() -> list[str]:
    """All there are."""
    return sorted(path.stem for path in REQUIREMENTS.glob("*.txt"))


def python(name: str) -> str:
    """The interpreter of an environment, which is made if it is not there or its requirements have changed.

    Raises:
        EnvironmentFailedError: it cannot be made.
    """
    wanted = (REQUIREMENTS / f"{name}.txt").read_text()
    directory = ENVIRONMENTS / name
    interpreter = directory / "bin" / "python"
    made_from = directory / "requirements.txt"
    if not made_from.exists() or made_from.read_text() != wanted:
        sys.stderr.write(f"Making the environment {name} (once) ...\n")
        shutil.rmtree(directory, ignore_errors=True)
        _uv("venv", "--python", sys.executable, str(directory))
        _uv(
            "pip", "install", "--python", str(interpreter), "--require-hashes", "-r", str(REQUIREMENTS / f"{name}.txt")
        )  # fmt: skip
        made_from.write_text(wanted)
    return str(interpreter)


def versions(name: str | None) -> dict[str, str]:
    """What is in an environment, from its requirements; None for this project's own."""
    locked = ROOT / "requirements.lock" if name is None else REQUIREMENTS / f"{name}.txt"
    return dict(_PINNED.findall(locked.read_text()))


def lock(name: str) -> None:
    """Resolve an environment's requirements anew.

    Raises:
        EnvironmentFailedError: they contradict each other.
    """
    ours = _PINNED.findall((ROOT / "requirements.lock").read_text())
    with tempfile.NamedTemporaryFile("w", suffix=".txt") as constraints:
        constraints.writelines(f"{package}=={pin}\n" for package, pin in ours if package not in _FREE.get(name, ()))
        constraints.flush()
        _uv(
            "pip", "compile", "--universal", "--python-version", "3.11", "--generate-hashes", "--no-emit-index-url",
            "--no-annotate", "--upgrade", "--custom-compile-command", "python -m benchmarks.environments --lock",
            "-c", constraints.name, "-o", str(REQUIREMENTS / f"{name}.txt"), str(REQUIREMENTS / f"{name}.in"),
        )  # fmt: skip


def _uv(*arguments: str) -> None:
    done = subprocess.run([*_UV, *arguments], cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode:
        raise EnvironmentFailedError(done.stderr.strip())


def main() -> None:
    """Make or resolve all."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--lock", action="store_true", help="resolve the requirements anew")
    if parser.parse_args().lock:
        for path in sorted(REQUIREMENTS.glob("*.in")):
            lock(path.stem)
    for name in names():
        python(name)


if __name__ == "__main__":
    main()
