"""Folds long lines on a terminal, at blanks, so that no word and no id is broken where a line ends."""

from __future__ import annotations

import shutil
import sys
import textwrap


def folded(line: str, indent: int) -> str:
    """Return a line for standard output; on a terminal folded to its width, with further lines indented.

    Other output has each line in one piece, so that programs can read it.
    """
    if not sys.stdout.isatty():
        return line
    width = shutil.get_terminal_size((100, 24)).columns
    return textwrap.fill(line, width, subsequent_indent=" " * indent, break_long_words=False, break_on_hyphens=False)
