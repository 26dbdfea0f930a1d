"""How spans are found and drawn for `agentstream trace`."""

import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest
from pydantic import JsonValue

from agentstream.infra.span_tree import BAR_CELLS, duration, of_run, rows, summary
from agentstream.infra.telemetry.span_lines import FILE, SpanLine, SpanLinkLine
from agentstream.schemas import span_names as names

MS = 1_000_000
TRACE = "ab" * 16


def span(  # noqa: PLR0917
    name: str,
    number: int,
    parent: int | None = None,
    began: int = 0,
    took: int = 10,
    trace: str = TRACE,
    status: str = "unset",
    links: tuple[SpanLinkLine, ...] = (),
    **attributes: JsonValue,
) -> SpanLine:
    """A span; `attributes` with the names of span_names in lower case."""
    named: Mapping[str, JsonValue] = {getattr(names, key.upper()): value for key, value in attributes.items()}
    return SpanLine.model_validate(
        {
            "trace_id": trace,
            "span_id": f"{number:016x}",
            "parent_id": None if parent is None else f"{parent:016x}",
            "name": name,
            "start_ns": began * MS,
            "end_ns": (began + took) * MS,
            "status": status,
            "attributes": named,
            "links": [link.model_dump() for link in links],
        }
    )


RUN = [
    span("chat gpt", 5, 4, began=2, took=6, input_tokens=12, output_tokens=3, time_to_first_chunk=0.001, run_id="r1"),
    span("execute_tool bash", 6, 4, began=8, took=1, status="error", error_type="tool_error", run_id="r1"),
    span("turn 1", 4, 3, began=1, took=8, run_id="r1"),
    span("invoke_agent pi", 3, 2, began=1, took=9, run_id="r1"),
    span("process agent.invoke-requests", 2, 1, took=11, partition="0", offset=7, run_id="r1"),
    span("send agent.invoke-requests", 1, took=12),
]


def trace(*arguments: str) -> subprocess.CompletedProcess[str]:
    """The command, in a process of its own: it sets the log up."""
    command = [sys.executable, "-m", "agentstream.infra.cli", "trace", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


def drawn(spans: list[SpanLine]) -> list[str]:
    """Stems and names."""
    return [row.stem + row.name for row in rows(spans)]


def test_children_stand_below_their_parents_in_the_order_in_which_they_began() -> None:
    assert drawn(RUN) == [
        "send agent.invoke-requests",
        "└ process agent.invoke-requests",
        "  └ invoke_agent pi",
        "    └ turn 1",
        "      ├ chat gpt",
        "      └ execute_tool bash",
    ]


def test_a_span_whose_parent_is_elsewhere_is_a_root_and_none_is_left_out() -> None:
    orphan = span("process x", 9, 77)
    itself = span("odd", 10, 10)

    assert sorted(drawn([*RUN, orphan, itself])) == sorted([*drawn(RUN), "process x", "odd"])


def test_notes_say_what_happened() -> None:
    notes = {row.name: row.notes for row in rows(RUN)}

    assert notes["chat gpt"] == "12 tokens in, 3 out, first piece after 1.0 ms"
    assert notes["execute_tool bash"] == "tool_error"
    assert notes["process agent.invoke-requests"] == "at 0/7"


def test_a_duplicate_says_that_it_is_one() -> None:
    again = span("process agent.invoke-requests", 20, partition="0", offset=8, run_id="r1", duplicate=True)

    assert [row.notes for row in rows([again])] == ["a duplicate, does not run again, at 0/8"]


def test_a_request_that_ended_its_workers_says_how_many() -> None:
    process = span("process agent.invoke-requests", 2, partition="0", offset=7, run_id="r1", strikes=3)

    assert [row.notes for row in rows([process])] == ["3 workers lost before, at 0/7"]


def test_a_second_attempt_says_what_it_comes_after_and_a_lost_one_who_wrote_it() -> None:
    link = SpanLinkLine(trace_id=TRACE, span_id="0" * 16, attributes={names.LINK: "lost_attempt"})
    lost = span("invoke_agent pi", 3, status="error", error_type="worker_lost", lost=True)
    second = span("invoke_agent pi", 4, began=5, links=(link,))

    assert [row.notes for row in rows([lost, second])] == [
        "worker_lost, written by the next owner",
        "after a lost attempt",
    ]


def test_bars_lie_where_the_span_lies_and_never_leave_their_column() -> None:
    bars = {row.name: row.bar for row in rows(RUN)}

    assert bars["send agent.invoke-requests"] == "█" * BAR_CELLS
    assert bars["execute_tool bash"].strip() == "█" * 2
    assert bars["execute_tool bash"].index("█") > bars["chat gpt"].index("█")
    assert {len(bar) for bar in bars.values()} == {BAR_CELLS}


def test_a_run_is_found_with_its_callers_spans_and_without_other_runs_of_the_same_trace() -> None:
    other = span("process agent.invoke-requests", 20, 1, run_id="r2")

    assert of_run([*RUN, other], "r1") == RUN
    assert of_run([*RUN, other], TRACE[:8]) == [*RUN, other]
    assert of_run(RUN, TRACE[:4]) == []
    assert of_run(RUN, "nobody") == []


@pytest.mark.parametrize(
    ("nanoseconds", "text"),
    [(850_000, "850 µs"), (12_300_000, "12.3 ms"), (150_000_000, "150 ms"), (4_210_000_000, "4.21 s"),
     (200_000_000_000, "3 min 20 s")],
)  # fmt: skip
def test_durations_are_for_people(nanoseconds: int, text: str) -> None:
    assert duration(nanoseconds) == text


def test_the_summary_counts_attempts_and_failures() -> None:
    assert summary(RUN) == f"trace {TRACE}, 6 spans, 1 attempt, 12.0 ms, 1 failed"


def test_the_command_draws_plain_lines_when_it_is_piped(tmp_path: Path) -> None:
    (tmp_path / FILE).write_text("".join(f"{each.model_dump_json()}\n" for each in RUN) + '{"cut')

    answer = trace("r1", "--dir", str(tmp_path))

    assert answer.returncode == 0
    assert answer.stdout.splitlines()[0].startswith(f"trace {TRACE}")
    assert "\x1b" not in answer.stdout
    assert "█" not in answer.stdout
    assert "execute_tool bash" in answer.stdout


def test_what_a_caller_chose_does_not_drive_the_terminal(tmp_path: Path) -> None:
    # The model's name stands in the span's name, in its attributes, and in what is said of it.
    evil = span("chat a/b\x1b]0;c\x07", 1, status="error", error_type="x\x1b[2J\ny", run_id="r1")
    evil = evil.model_copy(update={"status_detail": "no \x1b]0;d\x07"})
    (tmp_path / FILE).write_text(f"{evil.model_dump_json()}\n")
    answer = trace("r1", "--dir", str(tmp_path))
    assert answer.returncode == 0, answer.stderr
    assert "chat a/b]0;c" in answer.stdout
    assert "no ]0;d" in answer.stdout
    assert "\x1b" not in answer.stdout


def test_the_command_says_what_to_do_where_nothing_is_kept(tmp_path: Path) -> None:
    answer = trace("r1", "--dir", str(tmp_path / "none"))

    assert answer.returncode == 1
    assert "AGENTSTREAM_TRACE_DIR" in answer.stderr
