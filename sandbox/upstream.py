"""The documented endpoint, from a request to the steps of its answer, without sockets.

``POST /conversations/{id}/lock`` where ``{id}`` is exactly one percent-encoded segment. The order in which a call is
judged: path and method, the delays of the script, the bearer token, the quota, the script's faults, and at last the
right answer.
"""

from __future__ import annotations

import re
from http import HTTPStatus
from typing import TYPE_CHECKING, Literal, NamedTuple
from urllib.parse import unquote_to_bytes

from sandbox.faults import Drop, Respond, WrongBody
from sandbox.script import Chooser, Script
from sandbox.wire import Wait, message, render, right_answer

if TYPE_CHECKING:
    from collections.abc import Iterable

    from sandbox.call_log import Call, CallLog
    from sandbox.faults import AnyAnswer
    from sandbox.http_request import Request
    from sandbox.wire import Step

_PATH = re.compile(rb"/conversations/((?:[^/%]|%[0-9A-Fa-f]{2})+)/lock")


class Reply(NamedTuple):
    """What to do for a request; ``call`` is its record in the log."""

    steps: Iterable[Step]
    call: Call


class Upstream:
    """Answers calls by the script and keeps their log.

    ``token`` None accepts any call. ``script`` and ``token`` may be set at any time and from any thread; what is being
    answered then goes on as it began.
    """

    def __init__(self, *, script: Script, token: str | None, log: CallLog) -> None:
        self.token = token
        self.log = log
        self._chooser = Chooser(script)

    @property
    def script(self) -> Script:
        """The script; setting it resets how often its rules were used."""
        return self._chooser.script

    @script.setter
    def script(self, script: Script) -> None:
        self._chooser = Chooser(script)

    def accept(self, connection: int) -> Drop | None:
        """Return how the connection of that number is dropped at once, or None."""
        drop = self._chooser.accept(connection)
        if drop is not None:
            self.log.dropped_at_accept()
        return drop

    def serve(self, request: Request) -> Reply:
        """Return the answer to a request."""
        conversation_id = _conversation_id(request.path)
        authorization = self._authorization(request)
        call = self.log.begin(request, conversation_id, authorization)
        if conversation_id is None:
            return self._plain(call, HTTPStatus.NOT_FOUND, message(404, "No such path"))
        if request.method != "POST":
            return self._plain(call, HTTPStatus.METHOD_NOT_ALLOWED, message(405, "Use POST", headers={"Allow": "POST"}))
        chooser = self._chooser
        delay = chooser.delay_seconds(conversation_id, call.attempt)
        if self.token is not None and authorization != "right":
            refusal = message(401, "A valid bearer token is needed", headers={"WWW-Authenticate": "Bearer"})
            reply = self._plain(call, HTTPStatus.UNAUTHORIZED, refusal)
        elif (fault := chooser.over_quota() or chooser.answer(conversation_id, call.attempt)) is not None:
            self.log.decided(call, _name(fault))
            reply = Reply(render(fault, conversation_id), call)
        else:
            reply = self._plain(call, HTTPStatus.OK, right_answer(conversation_id))
        return reply if not delay else Reply(_after(delay, reply.steps), call)

    def _plain(self, call: Call, status: HTTPStatus, answer: bytes) -> Reply:
        self.log.decided(call, str(status.value))
        return Reply((answer,), call)

    def _authorization(self, request: Request) -> Literal["absent", "right", "wrong", "unchecked"]:
        sent = request.header(b"authorization")
        if self.token is None:
            return "absent" if sent is None else "unchecked"
        if sent is None:
            return "absent"
        scheme, _, credentials = sent.partition(" ")
        return "right" if scheme.lower() == "bearer" and credentials == self.token else "wrong"


def _conversation_id(path: bytes) -> str | None:
    match = _PATH.fullmatch(path)
    if match is None:
        return None
    try:
        conversation_id = unquote_to_bytes(match[1]).decode()
    except UnicodeDecodeError:
        return None
    # Servers and proxies resolve dot segments, percent-encoded or not (RFC 3986, section 6.2.2.3), before they route.
    return None if conversation_id in {".", ".."} else conversation_id


def _after(delay: float, steps: Iterable[Step]) -> Iterable[Step]:
    yield Wait(delay)
    yield from steps


def _name(fault: AnyAnswer) -> str:
    match fault:
        case Respond():
            return str(fault.status)
        case Drop():
            return f"drop:{fault.at}"
        case WrongBody():
            return f"wrong_body:{fault.what}"
        case _:
            return fault.kind
