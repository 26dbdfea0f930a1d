"""Whether two steps are the same, and in one line what is not."""

import json

from pydantic import JsonValue

from agentstream.consumers.replay.playing.tape import Step, canonical


def same(one: JsonValue, other: JsonValue) -> bool:
    """Whether two JSON values are the same."""
    return one == other or canonical(one) == canonical(other)


def told(step: Step, found: Step) -> bool:
    """Whether a model was told this step. Only text travels, and of no output a sentence of the harness's."""
    if step["step"] == "tool_result":
        response = step["response"]
        text = response if isinstance(response, str) else canonical(response)
        told = str(found.get("response"))
        return found["step"] == "tool_result" and (told == text or not text or _parsed_same(told, response))
    text, calls = str(step["text"]), step.get("tool_calls", [])
    return (
        found["step"] == "answer"
        and str(found["text"]).strip() == text.strip()
        and same(found.get("tool_calls", []), calls)
    )


def _parsed_same(text: str, response: JsonValue) -> bool:
    try:
        return not isinstance(response, str) and same(json.loads(text), response)
    except ValueError:
        return False


def difference(recorded: Step | None, replayed: Step) -> str:
    """The first difference of two steps that are not the same; None: the recording has no more."""
    if recorded is None:
        return "it goes on where the recorded run had ended"
    match recorded["step"], replayed["step"]:
        case "end", "end":
            what = f"it ended with {_how(replayed)}, the recorded run with {_how(recorded)}"
        case _, "end":
            what = f"it ended too early, with {_how(replayed)}"
        case "end", _:
            what = f"it goes on where the recorded run had ended with {_how(recorded)}"
        case "answer", "answer":
            what = _answer_difference(recorded, replayed)
        case "tool_result", "tool_result":
            what = f"another result of {recorded['tool'] or 'a tool'}"
        case _:
            what = f"{replayed['step']} where the recording has {recorded['step']}"
    return what


def _answer_difference(recorded: Step, replayed: Step) -> str:
    before, after = _calls_of(recorded), _calls_of(replayed)
    for old, new in zip(before, after, strict=False):
        if old["tool"] != new["tool"]:
            return f"another tool call: {new['tool']}, recorded is {old['tool']}"
        if not same(old["arguments"], new["arguments"]):
            return f"other arguments of {new['tool']}"
    if len(before) != len(after):
        return f"{len(after)} tool calls, recorded are {len(before)}"
    return "another text"


def _calls_of(step: Step) -> list[Step]:
    calls = step.get("tool_calls", [])
    return [call for call in calls if isinstance(call, dict)] if isinstance(calls, list) else []


def _how(step: Step) -> str:
    return str(step.get("error") or step.get("finish_reason"))


def nth(number: int) -> str:
    """1st, 2nd, …"""
    tail = "th" if 10 <= number % 100 <= 20 else {1: "st", 2: "nd", 3: "rd"}.get(number % 10, "th")
    return f"{number}{tail}"
