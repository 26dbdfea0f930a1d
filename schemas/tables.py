"""The tables in `docs/` that are generated from the models: error codes and events."""

from typing import Final, get_args

from agentstream.schemas.errors import ErrorCode, error_rule
from agentstream.schemas.events import AnyEvent, Event

_ELSEWHERE: Final = {
    "run.started": ("RUN_STARTED", "response.created"),
    "run.queued": ("CUSTOM", "response.queued"),
    "run.alive": ("CUSTOM", "–"),
    "run.retrying": ("CUSTOM", "–"),
    "run.ended": ("RUN_FINISHED or RUN_ERROR", "response.completed or response.failed"),
    "turn.started": ("STEP_STARTED", "–"),
    "turn.ended": ("STEP_FINISHED", "–"),
    "message.started": ("–", "–"),
    "message.ended": ("–", "response.completed (contributes)"),
    "part.started": ("TEXT_MESSAGE_START, REASONING_MESSAGE_START, TOOL_CALL_START", "response.output_item.added"),
    "part.delta": (
        "TEXT_MESSAGE_CONTENT, REASONING_MESSAGE_CONTENT, TOOL_CALL_ARGS",
        "response.output_text.delta, response.reasoning_text.delta, response.function_call_arguments.delta",
    ),
    "part.ended": (
        "TEXT_MESSAGE_END, REASONING_MESSAGE_END, TOOL_CALL_END",
        "response.output_text.done, response.reasoning_text.done, response.function_call_arguments.done",
    ),
    "tool.started": ("–", "–"),
    "tool.progress": ("CUSTOM", "–"),
    "tool.ended": ("TOOL_CALL_RESULT", "function_call_output"),
    "interaction.requested": ("RUN_FINISHED with outcome interrupt", "–"),
}
"""By event type: its counterparts in AG-UI 1.0 and in OpenAI's Responses."""

_MADE = "<!-- Made by `python -m agentstream.schemas.export`; edit `schemas/{source}` instead. -->\n"


def errors_page() -> str:
    """The page of error codes."""
    lines = [
        "# Error codes\n",
        _MADE.format(source="errors.py"),
        "Every `error.code` of a result, an event or a dead letter is one of these; it is also",
        "OpenTelemetry's `error.type`.",
        "*Retriable*: the worker tries again by itself, and the same request may succeed if sent again later.",
        "*Dead letter*: the record is kept on the dead-letter topic as well; once the cause is gone,",
        "`agentstream dead-letters redrive --code CODE` sends what died of it again.\n",
        "| code | title | stage | retriable | dead letter | what to do |",
        "|---|---|---|---|---|---|",
    ]
    for code in ErrorCode:
        rule = error_rule(code)
        marks = f"{_yes(rule.retriable)} | {_yes(rule.dead_letter)}"
        lines.append(f"| `{code.value}` | {rule.title} | {rule.stage.value} | {marks} | {rule.advice} |")
    return "\n".join(lines) + "\n"


def events_page() -> str:
    """The page of events."""
    lines = [
        "# Events\n",
        _MADE.format(source="events.py"),
        "What stands in the records of the delta topic. Every event has `type`, `seq`, `time` and `turn`.",
        "Readers ignore types and fields that they do not know. AG-UI's and OpenAI's events are the nearest.\n",
        "| type | meaning | own fields | AG-UI 1.0 | OpenAI Responses |",
        "|---|---|---|---|---|",
    ]
    for event in event_models():
        name = event.model_fields["type"].default
        own = ", ".join(f"`{field}`" for field in event.model_fields if field not in {*Event.model_fields, "type"})
        meaning = (event.__doc__ or "").strip().splitlines()[0]
        lines.append(f"| `{name}` | {meaning} | {own or '–'} | {' | '.join(_ELSEWHERE[name])} |")
    return "\n".join(lines) + "\n"


def event_models() -> tuple[type[Event], ...]:
    """The models of `AnyEvent`, in the order of their definition."""
    models: tuple[type[Event], ...] = get_args(get_args(AnyEvent)[0])
    return models


def _yes(flag: bool) -> str:
    return "yes" if flag else "–"
