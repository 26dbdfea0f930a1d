"""What must not leave with a recording does not, in whatever field or pieces it stands."""

import json

import pytest
from pydantic import JsonValue

from agentstream.consumers.redaction import REDACTED, Redactor
from agentstream.consumers.replay.recording.manifest import RecordingError
from agentstream.consumers.replay.recording.redacting import Rules
from agentstream.schemas.events import AnyEvent, PartDelta, PartEnded, RunStarted, ToolStarted
from agentstream.schemas.messages import Message, ToolCallPart
from agentstream.schemas.recordings import RecordedRun
from agentstream.schemas.requests import AgentParameters, HarnessChoice
from tests.support.captures import recorded
from tests.support.runs import NOW

MAIL = r"\w+@[\w.]+"


def with_events(*events: AnyEvent) -> RecordedRun:
    numbered = tuple(event.numbered(seq, NOW) for seq, event in enumerate(events))
    return recorded().model_copy(update={"events": numbered})


def piece(text: str, *, part: int = 0, message: str = "m", kind: str = "text") -> PartDelta:
    return PartDelta.model_validate(
        {"message_id": message, "part_index": part, "part_type": kind, "delta": text},
    )


def deltas(run: RecordedRun) -> list[str]:
    return [event.delta for event in run.events if isinstance(event, PartDelta)]


def test_a_run_in_which_nothing_is_found_is_the_same_object() -> None:
    run = recorded()
    rules = Rules(Redactor(["no-such-secret"]), [MAIL], ["$..arguments.password"])
    assert rules.apply(run) is run
    assert {found.rule: (found.replaced, found.runs) for found in rules.report()} == {
        "secrets": (0, 0),
        MAIL: (0, 0),
        "$..arguments.password": (0, 0),
    }


def test_a_pattern_is_found_wherever_somebody_wrote_and_ids_stay() -> None:
    run = recorded("ann.example.com", session="ann@example.com", text="I am ann@example.com, not bob@example.com")
    run = run.model_copy(update={"expected": {"ann@example.com": ["ann@example.com", 1, None]}})
    rules = Rules(Redactor(), [MAIL])
    clean = rules.apply(run)
    assert clean.request.messages == (Message.of_text("user", f"I am {REDACTED}, not {REDACTED}"),)
    assert clean.expected == {REDACTED: [REDACTED, 1, None]}
    assert clean.session_id == "ann@example.com"
    assert [(found.rule, found.replaced, found.runs) for found in rules.report()] == [("secrets", 0, 0), (MAIL, 4, 1)]


@pytest.mark.parametrize(
    ("pieces", "clean"),
    [
        (["a b", "ob@x.", "y c"], [f"a {REDACTED}", "", " c"]),
        (["bob@", "x", ".y"], [REDACTED, "", ""]),
        (["bob@x.y ann@", "x.y", " end"], [f"{REDACTED} {REDACTED}", "", " end"]),
        (["no", "thing", ""], ["no", "thing", ""]),
        (["", "bob@x.y"], ["", REDACTED]),
        (["a ", "bob@x.y", " c"], ["a ", REDACTED, " c"]),
    ],
)
def test_what_is_split_over_pieces_is_replaced_where_it_begins(pieces: list[str], clean: list[str]) -> None:
    run = with_events(*map(piece, pieces))
    assert deltas(Rules(Redactor(), [MAIL]).apply(run)) == clean


def test_pieces_of_different_parts_are_different_texts() -> None:
    run = with_events(piece("bob@", part=0), piece("x.y", part=1), piece("x.y", part=0), piece("z", message="n"))
    assert deltas(Rules(Redactor(), [MAIL]).apply(run)) == [REDACTED, "x.y", "", "z"]


def test_a_known_secret_is_found_in_pieces_too() -> None:
    run = with_events(piece("key canary-"), piece("0123456789 end"))
    assert deltas(Rules(Redactor(["canary-0123456789"])).apply(run)) == [f"key {REDACTED}", " end"]


def test_a_field_taken_out_by_its_path_is_nowhere_in_the_run() -> None:
    arguments: dict[str, JsonValue] = {"user": "ann", "password": "hunter22", "pin": 123}
    text = json.dumps(arguments)
    run = with_events(
        piece("the password is hun"),
        piece("ter22"),
        piece(text[:30], part=1, kind="tool_call"),
        piece(text[30:], part=1, kind="tool_call"),
        PartEnded(
            message_id="m",
            part_index=1,
            part_type="tool_call",
            part=ToolCallPart(id="1", name="login", arguments=arguments),
        ),
        ToolStarted(tool_call_id="1", tool_name="login", arguments=arguments),
    )
    rules = Rules(Redactor(), paths=["$..arguments.password", "$..arguments.pin"])
    clean = rules.apply(run)
    left = {"user": "ann", "password": REDACTED, "pin": REDACTED}
    assert deltas(clean) == [f"the password is {REDACTED}", "", json.dumps(left), ""]
    started = clean.events[-1]
    assert isinstance(started, ToolStarted)
    assert started.arguments == left
    text = clean.to_bytes().decode()
    assert not [word for word in ("hunter", "ter22", "123") if word in text]


def test_pieces_of_a_tool_call_that_never_ended_go_whole_with_a_path() -> None:
    run = with_events(
        ToolStarted(tool_call_id="1", tool_name="login", arguments={"pin": 123}),
        piece('{"pin": ', kind="tool_call"),
        piece("123", kind="tool_call"),
    )
    assert deltas(Rules(Redactor(), paths=["$..arguments.pin"]).apply(run)) == [REDACTED, ""]


def test_a_rule_that_leaves_no_run_is_refused_without_saying_what_it_took_out() -> None:
    rules = Rules(Redactor(), paths=["$.request.messages"])
    with pytest.raises(RecordingError, match=r"a rule takes out `request\.messages`") as refused:
        rules.apply(recorded(text="very private"))
    assert "private" not in str(refused.value)


@pytest.mark.parametrize(("patterns", "paths"), [(["("], []), (["x*"], []), ([], ["$..["]), ([], ["a b"])])
def test_what_is_no_rule_is_refused(patterns: list[str], paths: list[str]) -> None:
    with pytest.raises(RecordingError):
        Rules(Redactor(), patterns, paths)


def test_counting_goes_on_where_it_was() -> None:
    first, second = (Rules(Redactor(), [MAIL]) for _ in range(2))
    first.apply(recorded(text="ann@example.com"))
    second.restore(json.loads(json.dumps(first.counts)))
    second.apply(recorded(text="bob@example.com bob@example.com"))
    assert [(found.rule, found.replaced, found.runs) for found in second.report()][1:] == [(MAIL, 3, 2)]


def test_what_a_request_gives_its_harness_is_looked_through_too_and_the_harness_keeps_its_name() -> None:
    run = with_events(RunStarted(harness="bob@example.com"))
    options: dict[str, JsonValue] = {"text": "mail bob@example.com", "token": "a-secret-token"}
    parameters = AgentParameters.model_validate({"harness": {"kind": "scripted", "options": options}})
    request = run.request.model_copy(update={"parameters": parameters})
    run = run.model_copy(update={"request": request})
    clean = Rules(Redactor(["a-secret-token"]), [MAIL]).apply(run)
    assert clean.request.parameters.harness == HarnessChoice(
        kind="scripted", options={"text": f"mail {REDACTED}", "token": REDACTED}
    )
    assert clean.events == run.events
    only_secrets = Rules(Redactor(["a-secret-token"])).apply(run)
    assert b"a-secret-token" not in only_secrets.to_bytes()
