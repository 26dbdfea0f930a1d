from datetime import UTC, datetime

from agentstream.consumers.client import Voided
from agentstream.infra.printable import printable
from agentstream.infra.rendering import LiveRun, problem_line, shortened, summary
from agentstream.schemas.errors import ErrorCode, Problem
from agentstream.schemas.events import PartDelta, PartStarted, RunRetrying, ToolEnded, ToolStarted
from agentstream.schemas.messages import Cost, Usage
from agentstream.schemas.requests import AgentParameters
from agentstream.schemas.results import InvokeResult


def text(delta: str) -> PartDelta:
    return PartDelta(message_id="m1", part_index=0, part_type="text", delta=delta)


def shown(*events: object) -> str:
    out: list[str] = []
    live = LiveRun(piece=out.append, line=lambda line: out.append(f"[{line}]\n"))
    for event in events:
        live.show(event)  # type: ignore[arg-type]
    live.end_text()
    return "".join(out)


def test_words_come_as_they_are_and_a_tool_is_a_line_of_its_own() -> None:
    said = shown(
        text("Let me "),
        text("look."),
        ToolStarted(tool_call_id="1", tool_name="bash", arguments={"command": "ls"}),
        ToolEnded(tool_call_id="1", tool_name="bash", content="a\nb", duration_ms=5),
        PartStarted(message_id="m2", part_index=0, part_type="text"),
        text("Two files."),
    )
    assert said == 'Let me look.\n[→ bash {"command": "ls"}]\n[← bash a b (5 ms)]\nTwo files.\n'


def test_reasoning_and_arguments_are_not_part_of_the_answer() -> None:
    assert shown(PartDelta(message_id="m", part_index=0, part_type="reasoning", delta="hm")) == ""
    assert shown(PartDelta(message_id="m", part_index=0, part_type="tool_call", delta='{"a')) == ""


def test_a_void_attempt_is_said_to_be_one() -> None:
    said = shown(text("half an ans"), Voided(), text("whole"))
    assert said.splitlines()[0] == "half an ans"
    assert "void" in said.splitlines()[1]
    retried = RunRetrying(delay_ms=1, error=Problem.of(ErrorCode.RATE_LIMITED))
    assert shown(text("half"), retried, Voided(), text("whole")).count("…") == 1
    assert shown(RunRetrying(delay_ms=1, reason="draining")) == "[… the worker stops; trying again]\n"


def test_what_an_agent_says_does_not_drive_the_terminal() -> None:
    # ESC ] 0 ; … BEL sets the window's title, ESC [ 2 J clears the screen.
    assert shown(text("a\x1b]0;pwned\x07b\x1b[2Jc\x9bd\n\te")) == "a]0;pwnedb[2Jcd\n\te\n"
    assert printable("\r\b") == ""
    assert "\x1b" not in shortened({"a": "\x1b[2J"})


def test_the_end_is_one_line_with_what_one_needs_to_look_it_up() -> None:
    result = InvokeResult(
        run_id="r1",
        session_id="s1",
        partition=0,
        status="failed",
        usage=(Usage(provider="a", model="b", input_tokens=10, output_tokens=2),),
        cost=Cost(amount="0.01", source="settings"),
        error=Problem.of(ErrorCode.MAX_TURNS, "3 turns"),
        claim=1,
        attempt=1,
        crashes=2,
        deltas="complete",
        parameters=AgentParameters(),
        trace_id="t1",
        ended_at=datetime(2026, 1, 1, tzinfo=UTC),
    )
    line = summary(result)
    for part in ("failed", "10 tokens in, 2 out", "0.01 USD", "crashes: 2", "run r1", "session s1", "trace t1"):
        assert part in line
    assert "session a b [31m" in summary(result.model_copy(update={"session_id": "a\n\tb \x1b[31m"}))
    assert problem_line(result) == "max_turns: 3 turns"
