"""The server of the health port against strangers: what they can use up is bounded, and others are still answered."""

from __future__ import annotations

import os
import socket
import time
from contextlib import ExitStack, suppress
from http import HTTPStatus
from typing import TYPE_CHECKING

import pytest

from tests.system.stage import eventually
from worker.observe import page_request
from worker.observe.listening import listen
from worker.observe.page_request import Page
from worker.observe.page_server import MAX_CONNECTIONS, PageServer

if TYPE_CHECKING:
    from collections.abc import Iterator

    from worker.observe.page_request import Request

LATE = Page(HTTPStatus.SERVICE_UNAVAILABLE, "text/plain", b"late")
LARGE = b"x" * 20_000_000
GET = b"GET /page HTTP/1.1\r\nHost: worker\r\n\r\n"


class Served:
    """A server of three pages, and what a client gets of it."""

    def __init__(self) -> None:
        listening = listen("127.0.0.1", 0)
        self.address = listening[0].getsockname()
        self.kept: list[Request] = []
        self.server = PageServer(
            listening, paths=frozenset({"/page", "/large", "/never"}), ask=self._answer, late=LATE, name="pages"
        )
        self._clients = ExitStack()

    def _answer(self, request: Request) -> None:
        if request.path == "/never":
            self.kept.append(request)
        else:
            request.answer(Page(HTTPStatus.OK, "text/plain", LARGE if request.path == "/large" else b"a page"))

    def connect(self) -> socket.socket:
        """A client that is closed with the server."""
        client = self._clients.enter_context(socket.create_connection(self.address))
        client.settimeout(10)
        return client

    def ask(self, data: bytes) -> bytes:
        """All that comes back for some bytes."""
        client = self.connect()
        with suppress(ConnectionError):  # it may be closed before all is sent
            client.sendall(data)
        return received(client)

    def close(self) -> None:
        self.server.stop()
        self._clients.close()


def received(client: socket.socket) -> bytes:
    data = b""
    with suppress(ConnectionError):
        while more := client.recv(65_536):
            data += more
    return data


def is_closed(client: socket.socket) -> bool:
    client.settimeout(0)
    try:
        return client.recv(1) == b""
    except BlockingIOError:
        return False
    except ConnectionError:
        return True


@pytest.fixture
def served() -> Iterator[Served]:
    found = Served()
    found.server.start()
    yield found
    found.close()


def test_a_page_comes_with_its_length_and_the_connection_is_closed(served: Served) -> None:
    head, _, body = served.ask(GET).partition(b"\r\n\r\n")

    assert head.startswith(b"HTTP/1.1 200 OK\r\n")
    assert b"\r\nContent-Length: 6\r\n" in head
    assert head.endswith(b"\r\nConnection: close")
    assert body == b"a page"


@pytest.mark.parametrize(
    "request_bytes",
    [
        b"GET /page HTTP/1.0\r\n\r\n",
        b"GET /page HTTP/1.1\n\n",
        b"GET /page?verbose=1&x=%20 HTTP/1.1\r\nHost: a\r\n\r\n",
        b"GET http://pod:8080/page HTTP/1.1\r\nHost: a\r\n\r\n",
        b"GET /page HTTP/1.1\r\nHost: a\r\nCookie: " + b"c" * 8000 + b"\r\n\r\n",
        GET + GET,
    ],
    ids=["HTTP/1.0", "bare line breaks", "a query", "a whole URL", "a large cookie", "two at once"],
)
def test_requests_as_probes_and_people_send_them_are_answered(served: Served, request_bytes: bytes) -> None:
    assert served.ask(request_bytes).endswith(b"a page")


def test_head_gets_the_head_alone(served: Served) -> None:
    answer = served.ask(GET.replace(b"GET", b"HEAD"))

    assert answer.startswith(b"HTTP/1.1 200 ")
    assert b"\r\nContent-Length: 6\r\n" in answer
    assert answer.endswith(b"\r\n\r\n")


@pytest.mark.parametrize(
    ("request_bytes", "status"),
    [
        (b"GET /other HTTP/1.1\r\n\r\n", 404),
        (b"OPTIONS * HTTP/1.1\r\n\r\n", 404),
        (b"DELETE /page HTTP/1.1\r\n\r\n", 405),
        (b"POST /page HTTP/1.1\r\nContent-Length: 100000\r\n\r\n" + b"b" * 100_000, 405),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03 a TLS greeting\n", 400),
        (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 400),
        (b"\n" * 60_000, 400),
        (b"\x00" * 60_000, 431),
        (b"A" * 60_000, 431),
        (b"GET /" + b"a" * 60_000, 431),
        (b"GET /page HTTP/1.1\r\n" + b"X: y\r\n" * 10_000, 431),
        (b"GET" + b" " * 15_000 + b"/page\n", 400),
        (b"GET /page HTTP/1.1\xff\r\n\r\n", 400),
    ],
    ids=lambda value: value if isinstance(value, int) else ascii(value[:12]),
)
def test_anything_else_is_refused_with_a_status(served: Served, request_bytes: bytes, status: int) -> None:
    assert served.ask(request_bytes).startswith(f"HTTP/1.1 {status} ".encode())
    assert served.ask(GET).endswith(b"a page")


def test_any_bytes_get_an_answer_or_a_closed_connection_and_one_line_of_log(
    served: Served, caplog: pytest.LogCaptureFixture
) -> None:
    for size in (1, 100, 8_000, 60_000, 2_000_000):
        client = served.connect()
        with suppress(OSError):  # it may be closed before all is sent
            client.sendall(os.urandom(size))
            client.shutdown(socket.SHUT_WR)
        received(client)

    assert served.ask(GET).endswith(b"a page")
    assert len(caplog.messages) <= 1
    assert all(len(str(vars(record))) < 2000 for record in caplog.records)


def test_who_sends_slowly_is_cut_off_when_the_time_for_a_request_is_over(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, served: Served
) -> None:
    monkeypatch.setattr(page_request, "_REQUEST_SECONDS", 0.3)
    slow = served.connect()

    def drip() -> bool:
        with suppress(ConnectionError):
            slow.send(b"G")
            time.sleep(0.01)
        return is_closed(slow)

    eventually(drip, "a closed connection")
    assert [record.__dict__["requests"] for record in caplog.records] == [{"too_slow": 1}]


def test_who_does_not_read_is_cut_off(monkeypatch: pytest.MonkeyPatch, served: Served) -> None:
    monkeypatch.setattr(page_request, "_REQUEST_SECONDS", 0.3)
    deaf = served.connect()
    deaf.sendall(GET.replace(b"/page", b"/large"))

    assert served.ask(GET).endswith(b"a page")
    eventually(lambda: not served.server._open, "a closed connection")
    assert len(received(deaf)) < len(LARGE)


def test_who_reads_slowly_gets_all_of_it(served: Served) -> None:
    client = served.connect()
    client.sendall(GET.replace(b"/page", b"/large"))

    assert received(client).endswith(b"\r\n\r\n" + LARGE)


def test_who_closes_its_half_still_gets_its_answer(served: Served) -> None:
    client = served.connect()
    client.sendall(GET.replace(b"/page", b"/large"))
    client.shutdown(socket.SHUT_WR)

    assert received(client).endswith(LARGE)


def test_who_stays_after_its_answer_is_cut_off(monkeypatch: pytest.MonkeyPatch, served: Served) -> None:
    monkeypatch.setattr(page_request, "_CLOSE_SECONDS", 0.2)
    client = served.connect()
    client.sendall(GET)

    eventually(lambda: not served.server._open, "a closed connection")


def test_who_goes_on_sending_after_its_answer_is_cut_off(monkeypatch: pytest.MonkeyPatch, served: Served) -> None:
    monkeypatch.setattr(page_request, "_CLOSE_SECONDS", 3600)
    client = served.connect()

    def flood() -> bool:
        with suppress(ConnectionError):
            client.send(b"x" * 100_000)
            return False
        return True

    client.sendall(GET)
    eventually(flood, "a closed connection")


def test_an_answer_that_does_not_come_is_a_503(monkeypatch: pytest.MonkeyPatch, served: Served) -> None:
    monkeypatch.setattr(page_request, "_REQUEST_SECONDS", 0.2)

    assert served.ask(GET.replace(b"/page", b"/never")).endswith(b"late")
    served.server.call_soon(lambda: served.kept[0].answer(Page(HTTPStatus.OK, "text/plain", b"too late")))
    assert served.ask(GET).endswith(b"a page")


def test_silent_connections_never_use_up_more_than_a_few_descriptors_and_others_are_answered(
    served: Served, caplog: pytest.LogCaptureFixture
) -> None:
    silent = [served.connect() for _ in range(300)]

    for _ in range(20):
        assert served.ask(GET).endswith(b"a page")

    assert len(served.server._open) <= MAX_CONNECTIONS
    assert sum(map(is_closed, silent)) >= len(silent) - MAX_CONNECTIONS
    assert len(caplog.messages) == 1


def test_who_waits_for_an_answer_is_not_the_one_that_makes_room(served: Served) -> None:
    waiting = served.connect()
    waiting.sendall(GET.replace(b"/page", b"/never"))
    eventually(lambda: served.kept, "its question")
    for _ in range(3 * MAX_CONNECTIONS):
        served.connect()
    assert served.ask(GET).endswith(b"a page")

    served.server.call_soon(lambda: served.kept[0].answer(Page(HTTPStatus.OK, "text/plain", b"at last")))

    assert received(waiting).endswith(b"at last")


def test_where_all_are_owed_an_answer_a_newcomer_waits_for_the_first_of_them(served: Served) -> None:
    waiting = [served.connect() for _ in range(MAX_CONNECTIONS)]
    for client in waiting:
        client.sendall(GET.replace(b"/page", b"/never"))
    eventually(lambda: len(served.kept) == MAX_CONNECTIONS, "their questions")
    newcomers = [served.connect() for _ in range(3)]
    for newcomer in newcomers:
        newcomer.sendall(GET)

    def answer_all() -> None:
        for request in served.kept:
            request.answer(Page(HTTPStatus.OK, "text/plain", b"at last"))

    served.server.call_soon(answer_all)

    assert all(received(client).endswith(b"at last") for client in waiting)
    assert all(received(newcomer).endswith(b"a page") for newcomer in newcomers)


def test_clients_that_reset_at_once_harm_nobody(served: Served) -> None:
    for _ in range(200):
        client = socket.create_connection(served.address)
        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\x00\x00\x00\x00\x00\x00\x00")
        client.send(GET)
        client.close()

    assert served.ask(GET).endswith(b"a page")
    eventually(lambda: not served.server._open, "closed connections")


def test_an_error_in_a_page_costs_that_answer_alone(
    served: Served, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(_: Request) -> None:
        raise ZeroDivisionError

    with monkeypatch.context() as patch:
        patch.setattr(served.server, "ask", fail)
        assert served.ask(GET) == b""

    assert caplog.messages == ["health_error"]
    assert served.ask(GET).endswith(b"a page")


def test_a_stop_closes_what_is_open(served: Served) -> None:
    silent, waiting = served.connect(), served.connect()
    waiting.sendall(GET.replace(b"/page", b"/never"))
    eventually(lambda: served.kept, "its question")

    served.server.stop()

    eventually(lambda: is_closed(silent) and is_closed(waiting), "closed connections")
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(served.address)


def families(host: str) -> set[int]:
    sockets = listen(host, 0)
    for one in sockets:
        one.close()
    return {int(one.family) for one in sockets}


@pytest.mark.parametrize("loopback", ["127.0.0.1", "::1"])
def test_the_default_serves_both_families(loopback: str) -> None:
    if loopback == "::1" and not socket.has_dualstack_ipv6():
        pytest.skip("this machine has no IPv6")
    (listening,) = listen("::", 0)
    with listening, socket.create_connection((loopback, listening.getsockname()[1])):
        pass


def test_the_default_serves_a_host_without_ipv6(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(socket, "has_dualstack_ipv6", lambda: False)

    assert families("::") == {socket.AF_INET}


def test_one_family_alone_is_served_where_that_is_asked_for() -> None:
    assert families("0.0.0.0") == families("127.0.0.1") == {socket.AF_INET}  # noqa: S104


def test_a_port_in_use_is_an_error_for_the_default_too() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken, pytest.raises(OSError, match="in use"):
        listen("::", taken.getsockname()[1])


def test_a_name_that_nobody_has_is_an_error() -> None:
    with pytest.raises(socket.gaierror):
        listen("no-such-host.invalid", 0)
