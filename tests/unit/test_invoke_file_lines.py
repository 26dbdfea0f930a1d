"""Lines of a file as requests, and their results in a file: without Kafka."""

import asyncio
import json
import os
from collections import Counter
from datetime import UTC, datetime, timedelta
from io import StringIO
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentstream.infra.cli.batch_lines import Broken, Line, Lines
from agentstream.infra.cli.batch_output import FileOutput
from agentstream.infra.cli.batch_progress import Tally, duration
from agentstream.infra.cli.exits import USAGE, CommandError
from agentstream.infra.cli.line_source import count_lines, lines_of
from agentstream.infra.cli.screen import Screen
from tests.support.runs import NOW, result_of


def read(*lines: object, **defaults: object) -> list[Line | Broken]:
    reader = Lines(defaults)  # type: ignore[arg-type]  # as a test wants them
    texts = (line if isinstance(line, bytes) else json.dumps(line).encode() for line in lines)
    return [found for text in texts if (found := reader.read(text)) is not None]


def one(line: object, **defaults: object) -> Line:
    (found,) = read(line, **defaults)
    assert isinstance(found, Line), found
    return found


def why(line: object) -> str:
    (found,) = read(line)
    assert isinstance(found, Broken)
    return found.why


def test_a_line_says_what_it_needs_and_the_command_line_says_the_rest() -> None:
    defaults = {
        "parameters": {"model": "a/b", "limits": {"max_turns": 3, "total_ms": 5}},
        "metadata": {"batch": "1", "row": "0"},
        "session_id": "all",
    }
    line = one({"message": "hi", "model": "c/d", "parameters": {"limits": {"max_turns": 9}}}, **defaults)
    assert line.request.parameters.model == "c/d"
    assert line.request.parameters.limits is not None
    assert (line.request.parameters.limits.max_turns, line.request.parameters.limits.total_ms) == (9, 5)
    assert line.request.messages[0].text == "hi"
    assert line.session_id == "all"
    own = one({"message": "hi", "session": "mine", "metadata": {"row": "7"}}, **defaults)
    assert (own.session_id, own.request.metadata) == ("mine", {"batch": "1", "row": "7"})


@pytest.mark.parametrize(
    ("line", "words"),
    [
        (b"{", "not JSON at column 2"),
        (b"[]", "must be a JSON object"),
        (b'{"message": "\xff"}', "not UTF-8 at byte 13"),
        (b'{"message": "a", "message": "b"}', "message: the name stands twice"),
        ({}, "messages: is required"),
        ({"message": ""}, "message: must be a text that is not empty"),
        ({"message": 7}, "message: must be a text"),
        ({"message": "a", "messages": []}, "either `message` or `messages`"),
        ({"message": "a", "session": "b", "session_id": "c"}, "either `session` or `session_id`"),
        ({"message": "a", "run_id": "no id"}, "id: "),
        ({"message": "a", "parameters": []}, "parameters: must be an object"),
        (
            {"message": "a", "parameters": {"tols": []}},
            "tols: there is no such parameter; did you mean tools",
        ),
        ({"messages": [{"role": "user", "content": "a", "image": "b"}]}, "messages.0.image: there is no such field"),
        (b'{"message": "\\ud800"}', "message: a lone surrogate such as \\ud800 is no character"),
        ({"message": "a", "metadata": []}, "metadata: must be an object"),
        ({"message": "a", "model": "nonsense"}, "parameters.model: "),
        ({"messages": [{"role": "assistant", "content": "a"}]}, "last message must be from `user` or `tool`"),
        ({"message": "a", "metadata": {"n": 1}}, "metadata.n: must be a string"),
    ],
)
def test_what_is_wrong_is_said_with_its_place(line: object, words: str) -> None:
    assert words in why(line)


def test_the_number_of_a_line_counts_empty_ones_too() -> None:
    found = read(b"\xef\xbb\xbf" + b'{"message": "a"}', b"  \n", b"x", {"message": "b"})
    assert [(each.number, type(each)) for each in found] == [(1, Line), (3, Broken), (4, Line)]


@given(st.lists(st.sampled_from("abc"), max_size=8), st.integers(0, 8))
def test_a_line_that_is_added_anywhere_changes_no_run_id_of_the_others(texts: list[str], place: int) -> None:
    def ids(texts: list[str]) -> list[str]:
        return [each.run_id for each in read(*({"message": text} for text in texts)) if isinstance(each, Line)]

    before = ids(texts)
    assert len(set(before)) == len(before)
    after = ids([*texts[:place], "another", *texts[place:]])
    assert set(before) < set(after)


def test_another_round_or_another_parameter_is_another_run() -> None:
    line = {"message": "hi"}
    named = Lines({}, round_name="monday").read(json.dumps(line).encode())
    assert isinstance(named, Line)
    assert len({one(line).run_id, one(line, parameters={"model": "a/b"}).run_id, named.run_id}) == 3
    assert one(line).run_id == one(line).run_id
    assert one({**line, "run_id": "own"}).run_id == "own"


def test_a_file_of_results_remembers_its_runs_and_drops_a_piece_of_a_line(tmp_path: Path) -> None:
    path = tmp_path / "out.jsonl"
    with FileOutput(path) as output:
        output.write(1, result_of(run_id="a", text="ü"))
        assert output.finished == {"a": "completed"}
    whole = path.read_bytes()
    path.write_bytes(whole + b'{"line": 2, "te')
    with FileOutput(path) as output:
        assert output.finished == {"a": "completed"}
        assert path.read_bytes() == whole
        output.write(2, result_of(run_id="b"))
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    assert [(line["line"], line["text"], line["result"]["run_id"]) for line in lines] == [(1, "ü", "a"), (2, "ok", "b")]


def test_results_go_to_no_device_and_no_pipe(tmp_path: Path) -> None:
    # /dev/full was read until the machine had no memory left; a pipe, `>(gzip)`, was a bug of ours.
    os.mkfifo(tmp_path / "pipe")
    for path in (Path(os.devnull), tmp_path / "pipe"):
        with pytest.raises(CommandError, match="is no file that keeps") as found, FileOutput(path):
            pass
        assert found.value.code == USAGE


@pytest.mark.parametrize("text", ["notes\n", "[1]\n", '{"result": {}}\n', '{"line": 1}\n'])
def test_a_file_of_something_else_is_left_alone(tmp_path: Path, text: str) -> None:
    path = tmp_path / "notes.txt"
    path.write_text(text)
    with pytest.raises(CommandError, match="line 1 is no result") as found, FileOutput(path):
        pass
    assert found.value.code == USAGE
    assert path.read_text() == text


def test_the_tally_tells_rate_time_left_and_what_went_wrong() -> None:
    tally = Tally(total=100, began=0.0, began_at=NOW)
    assert tally.line(1.0, 4) == "0 of 100 · 4 under way · 0.0/s"
    tally.before = 20
    for _ in range(20):
        tally.took(result_of())
    assert tally.line(10.0, 4) == "40 of 100 · 4 under way · 2.0/s · 30 s left"
    assert tally.flawless
    flawed = Tally(total=100, began=0.0, began_at=NOW, done=Counter(tally.done), before=20, broken=1, lost=2)
    flawed.took(result_of(attempt=None))
    assert not flawed.flawless
    flaws = "1 failed · 2 without a result · 1 broken line"
    assert flawed.line(10.5, 0) == f"44 of 100 · 0 under way · 2.0/s · 28 s left · {flaws}"
    assert flawed.summary(10.5).startswith("20 completed · 20 were there before · 1 failed · 2 without a result")
    resumed = Tally(total=2, began=0.0, began_at=NOW)
    flawless = []
    for status in ("completed", "failed"):
        resumed.stood_there(status)
        flawless.append(resumed.flawless)
    assert flawless == [True, False], "asked again the same command said that all was well, and ended with 0"
    assert "2 were there before (1 of them not completed)" in resumed.summary(1.0)
    older = Tally(total=None, began=0.0, began_at=datetime.now(UTC) + timedelta(days=1))
    older.took(result_of())
    assert older.older == 1
    assert older.line(1.0, 0) == "1 · 0 under way · 1.0/s"
    assert [duration(seconds) for seconds in (3, 61, 7_290)] == ["3 s", "1 min 1 s", "2 h 1 min"]


async def test_a_named_pipe_is_read_as_it_comes_and_is_not_counted(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    assert count_lines(pipe) is None
    lines = lines_of(pipe)
    first = asyncio.ensure_future(anext(lines))
    writer = await asyncio.to_thread(os.open, pipe, os.O_WRONLY)
    os.write(writer, b'{"a": 1}\n{"b"')
    assert await first == b'{"a": 1}'
    os.write(writer, b": 2}")
    os.close(writer)
    assert [line async for line in lines] == [b'{"b": 2}']


def test_a_status_line_is_replaced_on_a_terminal_and_is_a_line_of_its_own_elsewhere(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.delenv("NO_COLOR", raising=False)

    class OnTerminal(StringIO):
        def isatty(self) -> bool:
            return True

    err = OnTerminal()
    screen = Screen(out=StringIO(), err=err)
    screen.status("one")
    screen.status("two")
    screen.note("a note", "red")
    screen.status("")
    assert err.getvalue() == "\x1b[2mone\x1b[0m\r\x1b[K\x1b[2mtwo\x1b[0m\r\x1b[K\x1b[31ma note\x1b[0m\n"
    plain = StringIO()
    Screen(out=StringIO(), err=plain).status("one")
    assert plain.getvalue() == "one\n"
