"""Text from elsewhere, made safe for a terminal: ids, reasons and names are whatever a producer or the API wrote."""

from __future__ import annotations


def printable(text: str) -> str:
    r"""Write every character that is not printable as JSON does: ``\u001b``.

    These are controls, line breaks, marks that turn the direction, and the like. JSON on one line stays the same JSON.
    """
    return text if text.isprintable() else "".join(map(_escaped, text))


def _escaped(character: str) -> str:
    if character.isprintable():
        return character
    units = character.encode("utf-16-be", "surrogatepass")
    return "".join(f"\\u{units[at : at + 2].hex()}" for at in range(0, len(units), 2))
