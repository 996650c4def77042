"""A receiver of traces that is away, slow or unwilling: it costs no job anything, and few lines in the log."""

from __future__ import annotations

import logging
import time
from typing import TYPE_CHECKING, Any

import pytest
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.trace import TracerProvider

from tests.observe.otlp_receiver import OtlpReceiver
from worker.observe.tracing.export import (
    QUIET_SECONDS,
    REPEAT_SECONDS,
    BoundedQueue,
    LostSpans,
    Reasons,
    ToldExporter,
    queue_size,
    without_credentials,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from opentelemetry.trace import Tracer


class Log:
    """Lost spans on a clock of their own, and the lines that came of them."""

    def __init__(self, caplog: pytest.LogCaptureFixture) -> None:
        self._caplog = caplog
        self.now = 1000.0
        self.spans = LostSpans(now=lambda: self.now)

    @property
    def events(self) -> list[str]:
        return [record.message for record in self._caplog.records]

    @property
    def last(self) -> dict[str, Any]:
        return vars(self._caplog.records[-1])


@pytest.fixture
def log(caplog: pytest.LogCaptureFixture) -> Log:
    return Log(caplog)


def test_what_is_exported_is_no_news(log: Log) -> None:
    for _ in range(100):
        log.spans.exported()

    assert log.events == []


def test_an_outage_is_one_line_and_then_a_count_each_minute(log: Log) -> None:
    for _ in range(int(3 * REPEAT_SECONDS)):
        log.spans.lost(10, "503 Service Unavailable")
        log.now += 1

    assert log.events == ["traces_not_exported", "traces_still_not_exported", "traces_still_not_exported"]
    assert (log.last["spans_lost"], log.last["problem"]) == (1210, "503 Service Unavailable")


def test_the_end_of_an_outage_is_one_line_with_all_that_was_lost(log: Log) -> None:
    log.spans.lost(10, "gone")
    log.now += 5
    log.spans.lost(5, "gone")
    log.now += QUIET_SECONDS
    log.spans.exported()
    log.spans.exported()

    assert log.events == ["traces_not_exported", "traces_exported_again"]
    assert (log.last["spans_lost"], log.last["seconds"]) == (15, 5 + QUIET_SECONDS)


def test_a_receiver_that_takes_every_second_batch_is_one_outage(log: Log) -> None:
    for _ in range(int(REPEAT_SECONDS)):
        log.spans.lost(10, "gone")
        log.spans.exported()
        log.now += 1

    assert log.events == ["traces_not_exported"]


def test_after_an_outage_the_next_one_counts_from_zero(log: Log) -> None:
    log.spans.lost(10, "gone")
    log.now += QUIET_SECONDS
    log.spans.exported()
    log.spans.lost(1, "gone")

    assert log.events == ["traces_not_exported", "traces_exported_again", "traces_not_exported"]
    assert log.last["spans_lost"] == 1


@pytest.fixture
def receiver() -> Iterator[OtlpReceiver]:
    with OtlpReceiver() as found:
        yield found


class Pipe:
    """A tracer, and all that lies between it and a receiver."""

    def __init__(self, endpoint: str, size: int, seconds: float) -> None:
        reasons, lost = Reasons(), LostSpans()
        reasons.listen()
        self._reasons = reasons
        self.queue = BoundedQueue(ToldExporter(OTLPSpanExporter(endpoint, timeout=seconds), lost, reasons), lost, size)
        self._provider = TracerProvider(shutdown_on_exit=False)
        self._provider.add_span_processor(self.queue)
        self.tracer: Tracer = self._provider.get_tracer("test")

    def record(self, spans: int) -> None:
        for _ in range(spans):
            self.tracer.start_span("a").end()

    def close(self) -> None:
        self._provider.shutdown()
        self._reasons.leave()


@pytest.fixture
def pipe(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Pipe]]:
    monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "10")
    monkeypatch.setenv("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", "50")
    made: list[Pipe] = []

    def make(url: str, *, seconds: float = 0.5) -> Pipe:
        made.append(Pipe(f"{url}/v1/traces", 100, seconds))
        return made[-1]

    yield make
    for one in made:
        one.close()


def wait_for(condition: Callable[[], Any]) -> None:
    deadline = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_while_a_receiver_holds_its_answer_no_more_spans_wait_than_the_queue_has_room_for(
    receiver: OtlpReceiver, pipe: Callable[..., Pipe], caplog: pytest.LogCaptureFixture
) -> None:
    receiver.may_answer.clear()
    queue = pipe(receiver.url)
    queue.record(1)
    wait_for(lambda: receiver.requests)

    queue.record(5000)

    assert queue.queue.waiting <= 100
    receiver.may_answer.set()
    wait_for(lambda: not queue.queue.waiting)
    assert [record.message for record in caplog.records] == ["traces_not_exported"]
    assert "queue" in vars(caplog.records[0])["problem"]


def test_a_receiver_that_refuses_is_named_with_its_status_and_in_one_line(
    receiver: OtlpReceiver, pipe: Callable[..., Pipe], caplog: pytest.LogCaptureFixture
) -> None:
    receiver.status = 401
    queue = pipe(receiver.url)

    for _ in range(5):
        queue.record(10)
        wait_for(lambda: not queue.queue.waiting)
    queue.close()

    assert [record.message for record in caplog.records] == ["traces_not_exported"]
    assert vars(caplog.records[0])["problem"] == "401 Unauthorized"


def test_a_receiver_that_is_away_is_told_of_without_the_secrets_of_its_address(
    pipe: Callable[..., Pipe], caplog: pytest.LogCaptureFixture
) -> None:
    queue = pipe(
        "http://user:secret@127.0.0.1:9", seconds=2
    )  # enough for a second try, before which the first is told of

    queue.record(10)
    wait_for(lambda: caplog.records)

    (line,) = caplog.records
    assert line.message == "traces_not_exported"
    assert "Connection refused" in vars(line)["problem"]
    assert "secret" not in str(vars(line))


def test_the_exporters_own_lines_are_in_the_log_again_when_a_worker_has_stopped(
    caplog: pytest.LogCaptureFixture,
) -> None:
    reasons = Reasons()
    exporter = logging.getLogger("opentelemetry.exporter.otlp.proto.http.trace_exporter")
    reasons.listen()
    exporter.error("Failed to export %s batch code: %s, reason: %s", "spans", None, "no route to\n host")
    reasons.leave()
    exporter.error("another")

    assert [record.message for record in caplog.records] == ["another"]
    assert reasons.last == "no route to host"


def test_an_exporter_that_raises_loses_its_spans_and_nothing_else(log: Log) -> None:
    class Broken(OTLPSpanExporter):
        def export(self, spans: Any) -> Any:
            raise RuntimeError(f"with a secret, of {len(spans)} spans")

    told = ToldExporter(Broken("http://127.0.0.1:9"), log.spans, Reasons())
    told.export([])

    assert log.events == ["traces_not_exported"]
    assert log.last["problem"] == "RuntimeError"


def test_a_reason_is_short_and_has_no_credentials() -> None:
    reason = "Max retries for https://me:secret@otel.example/v1?api_key=secret\u202e (refused) " + "x" * 1000
    assert "secret" not in without_credentials(reason)
    assert "otel.example/v1" in without_credentials(reason)
    assert without_credentials(reason).isprintable()
    assert len(without_credentials(reason)) <= 400


@pytest.mark.parametrize(("value", "size"), [("", 2048), ("10", 10), ("0", 1), ("many", 2048)])
def test_the_size_of_the_queue_is_opentelemetrys_variable(
    monkeypatch: pytest.MonkeyPatch, value: str, size: int
) -> None:
    monkeypatch.setenv("OTEL_BSP_MAX_QUEUE_SIZE", value)
    assert queue_size() == size
