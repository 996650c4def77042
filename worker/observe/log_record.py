"""The record of a log line."""

from __future__ import annotations

import logging
import time
from typing import Any


class Record(logging.LogRecord):
    """A record without what no line shows: the place in the source, the thread and the process.

    The standard library's record would parse a file name for each line.
    """

    def __init__(  # noqa: PLR0917 - logging's signature
        self,
        name: str,
        level: int,
        pathname: str,  # noqa: ARG002 - as above
        lineno: int,  # noqa: ARG002
        msg: object,
        args: Any,
        exc_info: Any,
        func: str | None = None,  # noqa: ARG002
        sinfo: str | None = None,
        **_: Any,
    ) -> None:
        self.name = name
        self.levelno = level
        self.levelname = logging.getLevelName(level)
        self.msg = msg
        self.args = args[0] if len(args) == 1 and isinstance(args[0], dict) and args[0] else args
        self.exc_info = exc_info
        self.exc_text = None
        self.stack_info = sinfo
        self.created = time.time()
