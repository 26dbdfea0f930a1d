"""The spans of an attempt's tool calls."""

from typing import Final

from opentelemetry.trace import SpanContext
from opentelemetry.util.types import AttributeValue

from agentstream.consumers.tracing.ids import span_number_of
from agentstream.consumers.tracing.quick import Attributes
from agentstream.consumers.tracing.spans import NEVER_ENDED, Held, SpanError, SpanMaker, TimedSpan
from agentstream.schemas import span_names as names
from agentstream.schemas.events import ToolEnded, ToolStarted

_ALL: Final[Attributes] = {
    names.SPAN_KIND: names.TOOL,
    names.GEN_AI_OPERATION: names.EXECUTE_TOOL,
    names.TOOL_TYPE: names.FUNCTION,
}


class ToolSpans:
    """Tool calls by their ids; several may be under way at once."""

    def __init__(self, make: SpanMaker, attempt_id: str, groups: Attributes, held: Held) -> None:
        """`groups`: what each of them says; `held` as in `SpanMaker.start`."""
        self._make = make
        self._attempt_id = attempt_id
        self._groups = groups
        self._held = held
        self._open: dict[str, TimedSpan] = {}
        self._started = 0

    def begin(self, event: ToolStarted, at: int, above: SpanContext) -> None:
        """A tool was called."""
        self._started += 1
        make, tool_name = self._make, self._make.text(event.tool_name)
        if (before := self._open.pop(event.tool_call_id, None)) is not None:
            before.end(at, NEVER_ENDED)
        said: dict[str, AttributeValue] = {
            names.TOOL_NAME: tool_name,
            names.TOOL_CALL_ID: make.text(event.tool_call_id),
        }
        if make.openinference:
            said[names.LLM_TOOL_NAME] = tool_name
        tool = self._open[event.tool_call_id] = make.start(
            f"{names.EXECUTE_TOOL} {tool_name}",
            above,
            said,
            shared=(_ALL, self._groups),
            at=at,
            span_id=span_number_of(self._attempt_id, "tool", self._started),
            held=self._held,
        )
        if make.content is not None and tool.is_recording:
            tool.set(make.both(names.TOOL_ARGUMENTS, names.INPUT_VALUE, make.content.value(event.arguments)))

    def end(self, event: ToolEnded, at: int) -> None:
        """It answered. One that nobody saw begin is passed over."""
        tool, make = self._open.pop(event.tool_call_id, None), self._make
        if tool is None:
            return
        if make.content is not None and tool.is_recording:
            tool.set(make.both(names.TOOL_RESULT, names.OUTPUT_VALUE, make.content.value(event.content)))
        tool.end(at, SpanError(code=names.TOOL_ERROR) if event.is_error else None)

    def close(self, at: int, error: SpanError) -> None:
        """What has no end by now ends here."""
        if not self._open:
            return
        for tool in self._open.values():
            tool.end(at, error)
        self._open.clear()
