"""Real servers that lack something: the program of one, with some of its names changed.

A managed service may lack a function of scripts or fields of ``INFO``, and no such service runs on this machine. The
server is the real one in all else: it registers or prints what it lacks under another name of the same length.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sandbox.server_binaries import ServerBinary

#: The name by which a script finds out what it may do, as it stands in the program.
ACL_CHECK = b"\0acl_check_cmd\0"


def without(binary: ServerBinary, folder: Path, *names: bytes) -> ServerBinary:
    """Return a copy of a server in a folder, in which each of these names has another first letter."""
    program = Path(binary.path).read_bytes()
    for name in names:
        letter = next(at for at, code in enumerate(name) if chr(code).isalpha())
        assert program.count(name) == 1, name
        program = program.replace(name, name[:letter] + b"Z" + name[letter + 1 :])
    copy = folder / "redis-server"  # the program goes by its name
    copy.write_bytes(program)
    copy.chmod(0o755)
    return replace(binary, path=str(copy))
