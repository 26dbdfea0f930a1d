"""Spans kept in a directory of this machine: how they are read again, and that they never grow beyond their bound."""

import multiprocessing
import os
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest
from opentelemetry.trace import Link, SpanKind, Status, StatusCode, set_span_in_context

from agentstream.infra.telemetry import span_file
from agentstream.infra.telemetry.environment import TelemetrySettings
from agentstream.infra.telemetry.opening import open_telemetry
from agentstream.infra.telemetry.span_lines import FILE, OLDER_FILE, SpanLine, read_spans
from tests.support.otel import set_otel, span


@pytest.fixture(autouse=True)
def bare_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    set_otel(monkeypatch, None)


async def test_spans_are_read_as_they_were_made(tmp_path: Path) -> None:
    directory = tmp_path / "a" / "b"
    async with open_telemetry(TelemetrySettings(), trace_dir=directory) as telemetry:
        tracer = telemetry.tracer_provider.get_tracer("tests")
        root = tracer.start_span("process", kind=SpanKind.CONSUMER, attributes={"n": 1, "list": ["é", "\n"], "t": True})
        links = [Link(root.get_span_context(), {"why": "r"})]
        child = tracer.start_span("chat", set_span_in_context(root), links=links)
        child.add_event("first chunk", {"ms": 2.5}, timestamp=17)
        child.set_status(Status(StatusCode.ERROR, "it broke"))
        child.end()
        root.end()
    chat, process = read_spans(directory)
    assert (process.name, process.kind, process.parent_id, process.status) == ("process", "consumer", None, "unset")
    assert process.attributes == {"n": 1, "list": ["é", "\n"], "t": True}
    assert process.resource["service.name"] == "agentstream-worker"
    assert (chat.trace_id, chat.parent_id) == (process.trace_id, process.span_id)
    assert (chat.status, chat.status_detail) == ("error", "it broke")
    assert [(each.name, each.time_ns, each.attributes) for each in chat.events] == [("first chunk", 17, {"ms": 2.5})]
    assert [(each.span_id, each.attributes) for each in chat.links] == [(process.span_id, {"why": "r"})]
    assert process.start_ns <= chat.start_ns <= chat.end_ns <= process.end_ns


async def test_only_the_user_can_read_what_was_said(tmp_path: Path) -> None:
    async with open_telemetry(TelemetrySettings(), trace_dir=tmp_path / "spans") as telemetry:
        span(telemetry, "a")
    for path in (tmp_path / "spans", *(tmp_path / "spans").iterdir()):
        assert stat.S_IMODE(path.stat().st_mode) & 0o077 == 0, path


async def test_a_directory_that_somebody_else_made_is_not_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    # Whoever owns it may read what is said, or put a link to another file of ours in its place.
    monkeypatch.setattr(os, "geteuid", lambda: 4_711)
    monkeypatch.setattr(span_file, "_ROOT", 4_712)
    async with open_telemetry(TelemetrySettings(), trace_dir=tmp_path / "spans") as telemetry:
        span(telemetry, "a")
    assert telemetry.losses == {}
    (line,) = [record.getMessage() for record in caplog.records]
    assert line.endswith("belongs to another user")


async def test_a_link_in_place_of_the_file_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "precious").write_text("mine")
    (tmp_path / "spans").mkdir()
    (tmp_path / "spans" / FILE).symlink_to(tmp_path / "precious")
    async with open_telemetry(TelemetrySettings(), trace_dir=tmp_path / "spans") as telemetry:
        span(telemetry, "a")
    assert (tmp_path / "precious").read_text() == "mine"
    assert telemetry.losses["file"].failed == 1


async def test_the_oldest_spans_go_when_the_bound_is_reached(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(span_file, "MAX_BYTES", 20_000)
    for batch in range(0, 1_000, 100):
        async with open_telemetry(TelemetrySettings(), trace_dir=tmp_path) as telemetry:
            for number in range(batch, batch + 100):
                span(telemetry, f"s{number}")
        assert telemetry.losses["file"].exported == 100
    sizes = [(tmp_path / name).stat().st_size for name in (OLDER_FILE, FILE)]
    assert all(size <= 20_000 for size in sizes)
    kept = [each.name for each in read_spans(tmp_path)]
    assert kept == [f"s{number}" for number in range(1_000 - len(kept), 1_000)]
    assert len(kept) > 20


async def test_lines_that_cannot_be_read_are_passed_over(tmp_path: Path) -> None:
    async with open_telemetry(TelemetrySettings(), trace_dir=tmp_path) as telemetry:
        span(telemetry, "a")
    written = (tmp_path / FILE).read_bytes()
    newer = written.replace(b'"name":"a"', b'"name":"b","to_come":{"x":1}')
    (tmp_path / FILE).write_bytes(b"\xff\xfe\n{}\n[]\n\n" + written + newer + written[:40])
    assert [each.name for each in read_spans(tmp_path)] == ["a", "b"]


def test_where_nothing_was_kept_nothing_is_read(tmp_path: Path) -> None:
    assert list(read_spans(tmp_path / "nowhere")) == []


def _write(directory: str, name: str) -> None:
    import asyncio

    async def write() -> None:
        for _ in range(20):
            async with open_telemetry(TelemetrySettings(), trace_dir=Path(directory)) as telemetry:
                for number in range(20):
                    span(telemetry, f"{name} {number}")

    asyncio.run(write())


def test_two_processes_may_share_a_directory(tmp_path: Path) -> None:
    # `agentstream dev` twice, say. Both rotate: no line is torn, none is lost before its time.
    start = multiprocessing.get_context("spawn")
    processes = [start.Process(target=_write, args=(str(tmp_path), name)) for name in ("a", "b")]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0, 0]
    lines = (tmp_path / FILE).read_text().splitlines()
    assert len(lines) == len(list(_parsed(lines))) == 800


def _parsed(lines: list[str]) -> Iterator[SpanLine]:
    return (SpanLine.model_validate_json(line) for line in lines)
