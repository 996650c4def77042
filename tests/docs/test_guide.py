"""The guide to the tests leads to all of them."""

from __future__ import annotations

import re
from pathlib import Path

TESTS = Path(__file__).parents[1]
GUIDE = (TESTS / "guide" / "__init__.py").read_text("utf-8")


def test_the_guide_names_every_folder_of_the_tests() -> None:
    folders = {folder.name for folder in TESTS.iterdir() if (folder / "__init__.py").exists()} - {"guide"}
    rows = "\n".join(line.split("|")[1] for line in GUIDE.splitlines() if line.startswith("| ``"))

    assert set(re.findall("``(.*?)``", rows)) == folders


def test_the_guide_puts_every_file_of_its_own_in_an_order() -> None:
    files = {file.stem for file in (TESTS / "guide").glob("test_*.py")}

    assert set(re.findall(r"^\d\. ``(\w+)``", GUIDE, re.MULTILINE)) == files
