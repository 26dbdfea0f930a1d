"""What `agentstream tail` keeps of what is there, and how deltas of many runs stand on one terminal."""

import re
from io import StringIO

from agentstream.infra.cli.screen import Screen
from agentstream.infra.cli.tail_feed import Feed, Seen, Wanted
from agentstream.infra.cli.tail_last import Last
from agentstream.infra.cli.tail_lines import as_json, cells, event_text, line
from agentstream.infra.cli.tail_streams import MAX_RUNS, WIDTH, Streams
from agentstream.infra.rendering import LiveRun
from agentstream.schemas.events import (
    AnyEvent,
    PartDelta,
    PartEnded,
    PartStarted,
    RunEnded,
    RunRetrying,
    RunStarted,
    ToolStarted,
)
from agentstream.schemas.headers import DeltaHeaders, cloud_event
from agentstream.schemas.records import Position, Record
from agentstream.schemas.trace import TraceContext
from tests.support.runs import flush, result_of

TRACE = TraceContext.fresh()


def record_of(value: bytes, *, offset: int = 0, partition: int = 0, at: int = 1, run_id: str = "run") -> Record:
    headers = tuple(cloud_event("agentstream.invoke-result.v1", run_id, TRACE))
    position = Position(topic="t", partition=partition, offset=offset)
    return Record(position=position, timestamp_ms=at, key=b"session", value=value, headers=headers)


def result(run_id: str, *, at: int, partition: int = 0, text: str = "ok") -> Seen:
    record = record_of(result_of(run_id=run_id, text=text).to_bytes(), partition=partition, at=at, run_id=run_id)
    seen = Feed("results", Wanted()).take(record)
    assert seen is not None
    return seen


def deltas(*events: AnyEvent, run_id: str = "run", attempt: int = 1, first_seq: int = 0) -> Record:
    events_of = flush(events, run_id=run_id, attempt=attempt, first_seq=first_seq)
    headers = tuple(DeltaHeaders(run_id, events_of.attempt_id, TRACE).of(first_seq))
    position = Position(topic="t", partition=0, offset=0)
    return Record(position=position, timestamp_ms=1, key=b"session", value=events_of.to_bytes(), headers=headers)


def words(text: str) -> PartDelta:
    return PartDelta(message_id="m", part_index=0, part_type="text", delta=text)


def begin() -> list[AnyEvent]:
    return [RunStarted(harness="scripted"), PartStarted(message_id="m", part_index=0, part_type="text")]


def test_the_last_ones_are_those_with_the_latest_times() -> None:
    last = Last("results", 2)
    for run_id, at, partition in (("a", 1, 0), ("d", 4, 0), ("b", 2, 1), ("c", 3, 1)):
        last.add(result(run_id, at=at, partition=partition))
    assert [seen.run_id for seen in last.in_order()] == ["c", "d"]


def test_within_a_partition_the_log_s_order_counts_and_not_the_clocks_of_those_who_write() -> None:
    last = Last("results", 3)
    for run_id, at in (("a", 9), ("b", 1), ("c", 5)):
        last.add(result(run_id, at=at))
    last.add(result("elsewhere", at=2, partition=1))
    assert [seen.run_id for seen in last.in_order()] == ["a", "b", "c"]


def test_large_ones_are_held_only_up_to_a_number_of_bytes() -> None:
    last = Last("results", 100, max_bytes=3_000)
    for number in range(10):
        last.add(result(f"run-{number}", at=number, text="x" * 500))
    assert last.too_large
    assert sum(seen.record.size for seen in last.in_order()) <= 3_000
    assert list(last.in_order())[-1].run_id == "run-9"
    # One that is larger than all there is room for is shown nevertheless.
    last.add(result("huge", at=99, text="x" * 5_000))
    assert [seen.run_id for seen in last.in_order()] == ["huge"]


def test_of_what_is_there_a_void_attempt_is_left_out_and_so_is_one_that_is_tried_again() -> None:
    feed, last = Feed("deltas", Wanted()), Last("deltas", 100)
    records = [
        deltas(*begin(), words("void"), run_id="a"),
        deltas(*begin(), words("fine"), run_id="b"),
        deltas(RunRetrying(delay_ms=1), run_id="b", first_seq=3),
        deltas(*begin(), words("counts"), run_id="a", attempt=2),
        deltas(words("late"), run_id="a", first_seq=3),
    ]
    for record in records:
        if (seen := feed.take(record)) is not None:
            last.add(seen)
    kept = "\n".join("\t".join(each) for seen in last.in_order() for each in cells(seen))
    assert [word for word in ("void", "fine", "counts", "late") if word in kept] == ["counts"]
    assert "run.retrying" in kept


def test_who_wants_one_run_is_given_no_other() -> None:
    feed = Feed("deltas", Wanted(run="a"))
    assert feed.take(deltas(*begin(), run_id="b")) is None
    assert feed.take(deltas(*begin(), run_id="a")) is not None
    assert Feed("deltas", Wanted(session="another")).take(deltas(*begin())) is None


def test_a_name_that_a_caller_chose_cannot_drive_the_terminal_or_break_a_line() -> None:
    record = record_of(result_of(text="a\x1b]0;b\x07\n\tc").to_bytes())
    evil = Seen(record=record, value=result("x", at=1).value, run_id="r\x1b[2J\n", session_id="s\t\x9b1m")
    assert "\x1b[2J" not in line(evil)
    (row,) = cells(evil)
    assert all("\t" not in cell and "\n" not in cell and "\x1b" not in cell for cell in row)
    tool = ToolStarted(tool_call_id="1", tool_name="\x1b]0;t\n", arguments={})
    for event in (RunStarted(harness="pi", model="a/b\x1b]0;m\x07"), tool):
        assert event_text(event).isprintable()
    told: list[str] = []
    LiveRun(piece=told.append, line=told.append).show(tool)
    assert told == ["→ ]0;t {}"]


def test_json_has_what_a_script_needs() -> None:
    shown = as_json(result("r", at=1_700_000_000_000))
    assert isinstance(shown, dict)
    assert shown["timestamp"] == "2023-11-14T22:13:20.000+00:00"
    assert (shown["topic"], shown["partition"], shown["offset"], shown["key"]) == ("t", 0, 0, "session")
    assert isinstance(shown["headers"], dict)
    assert shown["headers"]["ce_subject"] == "r"


class Terminal:
    """Streams, and what stands on the terminal, without its colours."""

    def __init__(self) -> None:
        self._out = StringIO()
        self._feed = Feed("deltas", Wanted())
        self.streams = Streams(Screen(out=self._out, err=StringIO()))

    def get(self, *events: AnyEvent, run_id: str, first_seq: int = 0, attempt: int = 1) -> None:
        seen = self._feed.take(deltas(*events, run_id=run_id, first_seq=first_seq, attempt=attempt))
        assert seen is not None
        self.streams.show(seen)

    @property
    def written(self) -> str:
        return re.sub(r"\x1b\[[0-9;]*m", "", self._out.getvalue())

    @property
    def lines(self) -> list[str]:
        return [each for each in self.written.splitlines() if "▸" not in each]


def test_one_run_alone_is_written_word_by_word() -> None:
    terminal = Terminal()
    terminal.get(*begin(), words("Hel"), run_id="aaaaaa")
    assert terminal.lines == ["aaaaaa │ Hel"]
    terminal.get(words("lo\nthere"), run_id="aaaaaa", first_seq=3)
    assert terminal.lines == ["aaaaaa │ Hello", "aaaaaa │ there"]
    assert not terminal.written.endswith("\n")
    terminal.streams.end()
    assert terminal.written.endswith("there\n")


def test_a_run_that_stands_behind_comes_line_by_line_and_then_takes_the_front() -> None:
    terminal = Terminal()
    terminal.get(*begin(), words("front"), run_id="aaaaaa")
    terminal.get(*begin(), words("held"), run_id="bbbbbb")
    assert terminal.lines == ["aaaaaa │ front"]
    terminal.get(words("x" * WIDTH + " y"), run_id="bbbbbb", first_seq=3)
    assert terminal.lines[1:] == ["bbbbbb │ held" + "x" * (WIDTH - 4)]
    terminal.get(PartEnded(message_id="m", part_index=0, part_type="text"), run_id="aaaaaa", first_seq=3)
    terminal.get(words("z"), run_id="bbbbbb", first_seq=4)
    assert terminal.lines[2:] == ["bbbbbb │ xxxx yz"]


def test_what_is_void_is_said_and_what_was_held_of_it_is_forgotten() -> None:
    terminal = Terminal()
    terminal.get(*begin(), words("front"), run_id="aaaaaa")
    terminal.get(*begin(), words("void"), run_id="bbbbbb")
    terminal.get(*begin(), words("good"), RunEnded(status="completed"), run_id="bbbbbb", attempt=2)
    assert not any("void" in each and "is void" not in each for each in terminal.lines)
    assert "bbbbbb │ … what was shown of this run is void: another attempt counts" in terminal.lines
    assert terminal.lines[-2:] == ["bbbbbb │ good", "bbbbbb │ ■ completed"]


def test_who_comes_late_sees_that_something_is_missing() -> None:
    terminal = Terminal()
    terminal.get(words("middle"), run_id="aaaaaa", first_seq=7)
    assert terminal.lines == ["aaaaaa │ […]", "aaaaaa │ middle"]


def test_many_runs_that_never_end_are_forgotten_and_what_was_held_of_them_is_shown() -> None:
    terminal = Terminal()
    terminal.get(*begin(), words("front"), run_id="aaaaaa")
    terminal.get(*begin(), words("held"), run_id="bbbbbb")
    for number in range(MAX_RUNS + 5):
        terminal.get(RunStarted(harness="scripted"), run_id=f"r{number}")
    assert len(terminal.streams._runs) == MAX_RUNS
    assert "bbbbbb │ held" in terminal.lines
