"""A real OTLP/HTTP receiver: what a collector does with traces, without what a collector does with them next."""

from __future__ import annotations

import gzip
import threading
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any, Self

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from sandbox.free_port import free_port

if TYPE_CHECKING:
    from types import TracebackType

    from opentelemetry.proto.common.v1.common_pb2 import KeyValue
    from opentelemetry.proto.trace.v1.trace_pb2 import Span as Recorded

KINDS = {1: "internal", 2: "server", 3: "client", 4: "producer", 5: "consumer"}
ERROR = 2


@dataclass(frozen=True)
class Span:
    """One span as it was received; ids in hexadecimal, and ``parent`` empty where there is none."""

    name: str
    kind: str
    trace: str
    id: str
    parent: str
    state: str
    links: tuple[tuple[str, str], ...]
    attributes: dict[str, Any]
    resource: dict[str, Any]
    is_error: bool
    began_ns: int
    ended_ns: int
    raw: bytes


class OtlpReceiver:
    """Listens on loopback; ``status`` is its answer, and while ``may_answer`` is not set it lets its clients wait."""

    def __init__(self) -> None:
        self.port = free_port("127.0.0.1")
        self.status = 200
        self.may_answer = threading.Event()
        self.may_answer.set()
        self.requests = 0
        self._spans: list[Span] = []

    def __enter__(self) -> Self:
        self._server = ThreadingHTTPServer(("127.0.0.1", self.port), _handler(self))
        self._server.daemon_threads = True
        self._server.block_on_close = False
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,))
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.may_answer.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    @property
    def url(self) -> str:
        """What OTEL_EXPORTER_OTLP_ENDPOINT is to be."""
        return f"http://127.0.0.1:{self.port}"

    def spans(self, name: str = "") -> list[Span]:
        """The spans that were received, in the order of their beginning."""
        found = [span for span in list(self._spans) if span.name.startswith(name)]
        return sorted(found, key=lambda span: span.began_ns)

    def answer(self, path: str, body: bytes) -> int:
        """Take one request, and return the status for it."""
        self.requests += 1
        if path != "/v1/traces":
            return 404
        self.may_answer.wait()
        if self.status == 200:
            request = ExportTraceServiceRequest.FromString(body)
            self._spans += [
                _span(span, _values(part.resource.attributes))
                for part in request.resource_spans
                for scope in part.scope_spans
                for span in scope.spans
            ]
        return self.status


def _handler(receiver: OtlpReceiver) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            if self.headers.get("Content-Encoding") == "gzip":
                body = gzip.decompress(body)
            self.send_response(receiver.answer(self.path, body))
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: Any) -> None:
            """Say nothing."""

    return Handler


def _span(span: Recorded, resource: dict[str, Any]) -> Span:
    return Span(
        name=span.name,
        kind=KINDS[span.kind],
        trace=span.trace_id.hex(),
        id=span.span_id.hex(),
        parent=span.parent_span_id.hex(),
        state=span.trace_state,
        links=tuple((link.trace_id.hex(), link.span_id.hex()) for link in span.links),
        attributes=_values(span.attributes),
        resource=resource,
        is_error=span.status.code == ERROR,
        began_ns=span.start_time_unix_nano,
        ended_ns=span.end_time_unix_nano,
        raw=span.SerializeToString(),
    )


def _values(pairs: Any) -> dict[str, Any]:
    return {pair.key: _value(pair) for pair in pairs}


def _value(pair: KeyValue) -> Any:
    kind = pair.value.WhichOneof("value")
    return None if kind is None else getattr(pair.value, kind)
