"""A recorded run as what it is replayed against.

Tape.steps     everything the agent did, in order, and its end: what a frozen replay is compared with
Tape.answers   what the model said to each of its calls
Tape.tools     what tools answered, by name and canonical arguments
"""

import json
from collections import deque
from dataclasses import dataclass, field
from typing import Self

from pydantic import JsonValue

from agentstream.schemas.errors import ErrorCode, Problem
from agentstream.schemas.events import MessageEnded
from agentstream.schemas.messages import (
    FinishReason,
    Message,
    ReasoningPart,
    ToolCallPart,
    ToolCallResponsePart,
    Usage,
)
from agentstream.schemas.recordings import RecordedRun

Step = dict[str, JsonValue]
"""One thing an agent did: `answer`, `tool_result` or `end`. Ids are left out: each run makes its own."""


def canonical(value: JsonValue) -> str:
    """The same text for the same JSON value: keys sorted, 2.0 written as 2 (JavaScript knows no difference)."""
    return json.dumps(_plain(value), sort_keys=True, separators=(",", ":"))


def _plain(value: JsonValue) -> JsonValue:
    if isinstance(value, float) and value.is_integer() and abs(value) < 2**53:
        return int(value)
    if isinstance(value, dict):
        return {key: _plain(inner) for key, inner in value.items()}
    return [_plain(inner) for inner in value] if isinstance(value, list) else value


@dataclass(frozen=True, kw_only=True, slots=True)
class ModelAnswer:
    """What the model said to one call."""

    text: str
    """Its text."""
    reasoning: str
    """What it thought first."""
    calls: tuple[ToolCallPart, ...]
    """The tools it asked for."""
    finish_reason: FinishReason
    """Why it stopped."""
    usage: Usage | None
    """Its tokens, where the recording has them."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ToolResult:
    """What a tool answered."""

    content: JsonValue
    """The answer."""
    is_error: bool
    """Whether it failed."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Tape:
    """A recorded run, ready to be played against. Immutable."""

    steps: tuple[Step, ...] = ()
    """What the agent did; the last one is its end."""
    answers: tuple[ModelAnswer, ...] = ()
    """The model's answers, in order."""
    tools: dict[str, tuple[ToolResult, ...]] = field(default_factory=dict)
    """Answers by call, see `call_key`, in order."""
    failure: Problem | None = None
    """How the recorded run failed, if it did."""
    unplayable: str | None = None
    """Why it cannot be played frozen, in one line."""

    @classmethod
    def of(cls, run: RecordedRun) -> Self:
        """Of a recorded run; one without a result gives an empty tape that says so."""
        result = run.result
        if result is None:
            return cls(unplayable="the recording has no result of this run")
        if result.status == "cancelled":
            return cls(
                tools=_tools(result.messages), unplayable="the recorded run was cancelled, which nothing can repeat"
            )
        return cls(
            steps=(*steps_of(result.messages), end_step(result.finish_reason, result.error)),
            answers=tuple(_answers(run)),
            tools=_tools(result.messages),
            failure=result.error,
        )


def call_key(name: str, arguments: JsonValue) -> str:
    """Equal for calls that are the same."""
    return f"{name} {canonical(arguments if arguments is not None else {})}"


def steps_of(messages: tuple[Message, ...], names: dict[str, str] | None = None) -> list[Step]:
    """What these messages say was done. `names` remembers tools by call id from one call to the next."""
    names = {} if names is None else names
    steps: list[Step] = []
    for message in messages:
        if message.role == "assistant":
            steps.append(_answer_step(message))
            names.update({part.id: part.name for part in message.parts if isinstance(part, ToolCallPart)})
        steps += [
            {
                "step": "tool_result",
                "tool": names.get(part.id, ""),
                "response": part.response,
                "is_error": part.is_error,
            }
            for part in message.parts
            if isinstance(part, ToolCallResponsePart)
        ]
    return steps


def _answer_step(message: Message) -> Step:
    """Reasoning is left out: providers sign, shorten or drop it."""
    calls: list[JsonValue] = [
        {"tool": part.name, "arguments": part.arguments if part.arguments is not None else {}}
        for part in message.parts
        if isinstance(part, ToolCallPart)
    ]
    step: Step = {"step": "answer", "text": message.text}
    return {**step, "tool_calls": calls} if calls else step


def end_step(finish_reason: FinishReason | None, error: Problem | None) -> Step:
    """How a run ended."""
    if error is not None:
        return {"step": "end", "error": error.code.value}
    return {"step": "end", "finish_reason": finish_reason}


def failed_step(code: ErrorCode) -> Step:
    """The end of a run that failed."""
    return {"step": "end", "error": code.value}


def _answers(run: RecordedRun) -> list[ModelAnswer]:
    """What was cut off by an error is no answer: the run failed there, and does so again."""
    assert run.result is not None
    told = [each for each in run.events if isinstance(each, MessageEnded) and each.finish_reason is not None]
    said = [message for message in run.result.messages if message.role == "assistant"]
    answers: list[ModelAnswer] = []
    for place, message in enumerate(said):
        calls = tuple(part for part in message.parts if isinstance(part, ToolCallPart))
        # Events may be gone or incomplete; then the reason is what it must have been, and tokens are unknown.
        event = told[place] if len(told) == len(said) else None
        default: FinishReason = "tool_call" if calls else "stop"
        if place == len(said) - 1 and not calls and run.result.finish_reason in ("length", "content_filter"):
            default = run.result.finish_reason
        reason = default if event is None or event.finish_reason is None else event.finish_reason
        if reason in ("error", "cancelled"):
            break
        answers.append(
            ModelAnswer(
                text=message.text,
                reasoning="".join(part.content for part in message.parts if isinstance(part, ReasoningPart)),
                calls=calls,
                finish_reason=reason,
                usage=None if event is None else event.usage,
            )
        )
    return answers


def _tools(messages: tuple[Message, ...]) -> dict[str, tuple[ToolResult, ...]]:
    called: dict[str, str] = {}
    found: dict[str, deque[ToolResult]] = {}
    for message in messages:
        for part in message.parts:
            if isinstance(part, ToolCallPart):
                called[part.id] = call_key(part.name, part.arguments)
            elif isinstance(part, ToolCallResponsePart) and part.id in called:
                answer = ToolResult(content=part.response, is_error=part.is_error)
                found.setdefault(called[part.id], deque()).append(answer)
    return {key: tuple(answers) for key, answers in found.items()}
