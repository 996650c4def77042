r"""Makes text from outside safe for a terminal and for a log: ids, reasons and names may have any characters.

A control character can rewrite what a terminal shows, a direction mark can make one id look like another, and a line
separator can forge a log line.
"""

from __future__ import annotations


def printable(text: str) -> str:
    r"""Return a text with every character that is not printable as JSON's escape, such as ``\u001b``.

    These are control characters, line breaks, direction marks and the like. JSON on one line stays the same JSON.
    """
    if text.isprintable():
        return text
    return "".join(character if character.isprintable() else _escaped(character) for character in text)


def escape_unencodable(error: UnicodeError) -> tuple[str, int]:
    """Escape what an output's encoding does not have; an error handler for :func:`codecs.register_error`."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    return "".join(map(_escaped, error.object[error.start : error.end])), error.end


def _escaped(character: str) -> str:
    units = character.encode("utf-16-be", "surrogatepass")
    return "".join(f"\\u{units[at : at + 2].hex()}" for at in range(0, len(units), 2))
