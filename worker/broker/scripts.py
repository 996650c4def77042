"""Loads the Lua files as Redis runs them: one text and one SHA1 digest each.

``lua/prelude.lua`` stands before each of them. ``allow-oom``: the moves finish jobs and so free memory; a full Redis
that refused them would never drain. ``no-writes``: a server that cannot write to disk, and a replica, run it too
(https://redis.io/docs/latest/develop/programmability/lua-api/#script-flags).
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from importlib.resources import files

_SHEBANG = "#!lua flags={flags}\n"


@dataclass(frozen=True, slots=True)
class Script:
    """One atomic move: its file's name, its text, and the digest that calls it once the server knows the text."""

    name: str
    text: str
    sha: str


def _load(name: str, *, flags: str = "allow-oom") -> Script:
    folder = files(__package__) / "lua"
    text = "\n".join(
        [
            _SHEBANG.format(flags=flags) + (folder / "prelude.lua").read_text("utf-8"),
            (folder / f"{name}.lua").read_text("utf-8"),
        ]
    )
    return Script(name, text, hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest())


TAKE = _load("take")
CLAIM = _load("claim")
COMPLETE = _load("complete")
DELAY = _load("delay")
RELEASE = _load("release")
RENEW = _load("renew")
THROTTLE = _load("throttle")
REGISTER = _load("register")
RESTORE_ATTEMPTS = _load("restore_attempts")
EXPIRE = _load("expire")
PROMOTE = _load("promote")
RECOVER = _load("recover")
LOST_TAKES = _load("lost_takes")
REPLAY = _load("replay")
DISCARD = _load("discard")
ADOPT = _load("adopt")
HOLD = _load("hold")
RELEASE_HELD = _load("release_held")
CONTROL = _load("control")
CANCEL = _load("cancel")
WAKE = _load("wake")
COUNT_RULES = _load("count_rules")
SAMPLE = _load("sample")
NOTE_LAYOUT = _load("note_layout")
STATE = _load("state", flags="no-writes")
