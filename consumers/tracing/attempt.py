"""The spans of one attempt, made of its events: `invoke_agent`, `turn`, `chat` and `execute_tool`.

Told each event with its time, in order, long after or from the delta log: the same events give the same spans, under
the same ids. Synchronous; raises nothing.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from opentelemetry.trace import Link, SpanContext, SpanKind
from opentelemetry.util.types import AttributeValue

from agentstream.consumers.bill import Bill
from agentstream.consumers.harness.port import HarnessEvent
from agentstream.consumers.numbering import AttemptName
from agentstream.consumers.tracing.chat import BROKEN_OFF, ChatSpan
from agentstream.consumers.tracing.content import Output
from agentstream.consumers.tracing.ids import span_number_of
from agentstream.consumers.tracing.quick import Attributes
from agentstream.consumers.tracing.spans import (
    NEVER_ENDED,
    Held,
    SpanError,
    SpanMaker,
    TimedSpan,
    nanoseconds,
)
from agentstream.consumers.tracing.tools import ToolSpans
from agentstream.producers.spans import clean
from agentstream.schemas import span_names as names
from agentstream.schemas.events import (
    MessageEnded,
    MessageStarted,
    PartDelta,
    PartStarted,
    ReadEvent,
    ToolEnded,
    ToolStarted,
    TurnEnded,
    TurnStarted,
)
from agentstream.schemas.messages import Cost, FinishReason, Message

_AGENT: Final[Attributes] = {names.SPAN_KIND: names.AGENT, names.GEN_AI_OPERATION: names.INVOKE_AGENT}
_TURN: Final[Attributes] = {names.SPAN_KIND: names.CHAIN}
_CHAT: Final[Attributes] = {
    names.SPAN_KIND: names.LLM,
    names.GEN_AI_OPERATION: names.CHAT,
    names.REQUEST_STREAM: True,
}


@dataclass(frozen=True, kw_only=True, slots=True)
class AgentFacts:
    """What is known of an agent before it runs."""

    model: str | None
    """`provider/id`, or None."""
    harness: str
    """The harness's kind."""
    messages: tuple[Message, ...] = ()
    """What it is asked; empty where that is not known."""


class AttemptWriter:
    """Makes spans of what it is told. When it is closed, whatever is open is closed with it."""

    def __init__(  # noqa: PLR0913 - what its first span is made of
        self,
        make: SpanMaker,
        name: AttemptName,
        facts: AgentFacts,
        *,
        at: int,
        above: SpanContext,
        links: Sequence[Link],
        held: Held,
    ) -> None:
        """Begins with `invoke_agent`, below `above`, at nanoseconds since 1970; `held` as in `SpanMaker.start`."""
        self._make = make
        self._held = held
        self._attempt_id = name.attempt_id
        self._bill: Bill | None = None
        self._turn: TimedSpan | None = None
        self._turn_stopped: int | None = None
        self._chat: ChatSpan | None = None
        self._chats = 0
        self._history = list(facts.messages)
        self._said: list[Output] = []
        session_id = clean(name.session_id)
        self._groups: Attributes = {
            names.SESSION_ID: session_id,
            names.CONVERSATION_ID: session_id,
            names.RUN_ID: name.run_id,
        }
        self._tools: ToolSpans | None = None
        model = _model(facts.model)
        agent = make.agent_name or facts.harness
        self.agent = make.start(
            f"{names.INVOKE_AGENT} {agent}",
            above,
            {
                names.AGENT_NAME: agent,
                names.HARNESS: facts.harness,
                names.CLAIM: name.claim,
                names.ATTEMPT: name.attempt,
                names.ATTEMPT_ID: name.attempt_id,
                **model,
            },
            shared=(_AGENT, self._groups),
            at=at,
            span_id=span_number_of(name.attempt_id, "agent", 0),
            links=links,
            held=held,
        )
        # Each model call says the same when it begins.
        self._chat_name = f"{names.CHAT} {model.get(names.REQUEST_MODEL, facts.model)}" if facts.model else names.CHAT
        self._chat_said = (_CHAT, {**model, **self._groups} if model else self._groups)
        self.shows = self.agent.is_recording
        """Else it is not sampled, or closed: what is below would not be recorded either."""
        self._show_asked(self.agent, facts.messages)

    def saw(self, event: HarnessEvent | ReadEvent, time: datetime) -> None:
        """It happened then."""
        if not self.shows:
            return
        # Not by `match`: to find that an event is of no such class costs pydantic's classes half a microsecond.
        if type(event) is PartStarted or type(event) is PartDelta:
            if self._chat is not None:
                self._chat.first_chunk(nanoseconds(time))
        elif type(event) is TurnStarted:
            self._begin_turn(event.turn, nanoseconds(time))
        elif type(event) is TurnEnded:
            self._end_turn(event, nanoseconds(time))
        elif type(event) is MessageStarted:
            if event.role == "assistant" and (self._chat is None or self._chat.stopped is not None):
                self._begin_chat(nanoseconds(time))
        elif type(event) is MessageEnded:
            self._end_message(event, nanoseconds(time))
        else:
            self._saw_tool(event, time)

    def _saw_tool(self, event: HarnessEvent | ReadEvent, time: datetime) -> None:
        if type(event) is ToolStarted:
            if self._tools is None:
                self._tools = ToolSpans(self._make, self._attempt_id, self._groups, self._held)
            self._tools.begin(event, nanoseconds(time), self._innermost.place)
        elif type(event) is ToolEnded and self._tools is not None:
            self._tools.end(event, nanoseconds(time))

    def close(self, at: int, error: SpanError | None, reason: FinishReason | None, cost: Cost | None) -> None:
        """The attempt is over; what is still open is closed with its error."""
        if not self.shows:
            return
        self.shows = False
        self._close_turn(at, error or NEVER_ENDED)
        said: dict[str, AttributeValue] = {}
        if reason is not None:
            said[names.FINISH_REASONS] = [reason]
        if cost is not None:
            said |= {names.COST: cost.amount, names.COST_CURRENCY: cost.currency}
        if self._bill is not None:
            said |= self._make.aggregated_usage(self._bill.usage)
        self.agent.set(said)
        self._show_said(self.agent, self._said)
        self.agent.end(at, error)

    @property
    def _innermost(self) -> TimedSpan:
        """What calls and tools belong to."""
        return self.agent if self._turn is None else self._turn

    def _begin_turn(self, number: int, at: int) -> None:
        self._close_turn(at, NEVER_ENDED)
        self._turn_stopped = None
        self._turn = self._make.start(
            f"turn {number}",
            self.agent.place,
            {names.TURN: number},
            shared=(_TURN, self._groups),
            at=at,
            span_id=span_number_of(self._attempt_id, "turn", number),
            held=self._held,
        )
        self._begin_chat(at)

    def _end_turn(self, event: TurnEnded, at: int) -> None:
        self._count(event)
        if self._tools is not None:
            self._tools.close(at, NEVER_ENDED)
        if self._chat is not None:
            self._chat.stop(at, event.finish_reason, event.usage)
        self._turn_stopped = at
        if event.finish_reason not in BROKEN_OFF:
            self._close_turn(at, None)
        # Else the turn and its call wait for the attempt's end, which says why: it is not known before.

    def _close_turn(self, at: int, error: SpanError | None) -> None:
        """End what is open with this error; what has stopped by itself ended when it stopped, and well unless it broke
        off: then the error is the first that is known of why."""
        if self._tools is not None:
            self._tools.close(at, error or NEVER_ENDED)
        broken = self._chat is not None and self._chat.broken_off
        if self._chat is not None:
            self._chat.end(at, error)
            self._chat = None
        if self._turn is not None:
            stopped = self._turn_stopped
            self._turn.end(at if stopped is None else stopped, error if stopped is None or broken else None)
            self._turn = None

    def _begin_chat(self, at: int) -> None:
        if self._chat is not None:
            self._chat.end(at, None)
        self._chats += 1
        span = self._make.start(
            self._chat_name,
            self._innermost.place,
            {},
            shared=self._chat_said,
            at=at,
            kind=SpanKind.CLIENT,
            span_id=span_number_of(self._attempt_id, "chat", self._chats),
            held=self._held,
        )
        self._show_asked(span, self._history)
        self._chat = ChatSpan(self._make, span)

    def _end_message(self, event: MessageEnded, at: int) -> None:
        self._count(event)
        message, chat = event.message, self._chat if _is_assistants(event) else None
        if chat is not None:
            chat.stop(at, event.finish_reason, event.usage)
        if self._make.content is not None and message is not None:
            said: list[Output] = [(message, event.finish_reason)]
            if chat is not None:
                self._show_said(chat.span, said)
            self._history.append(message)
            self._said += said if message.role == "assistant" else []

    def _count(self, event: MessageEnded | TurnEnded) -> None:
        if event.usage is not None:
            self._bill = self._bill or Bill()
            self._bill.saw(event)

    def _show_said(self, span: TimedSpan, said: Sequence[Output]) -> None:
        content = self._make.content
        if content is not None and said and span.is_recording:
            span.set(self._make.both(names.OUTPUT_MESSAGES, names.OUTPUT_VALUE, content.outputs(said)))

    def _show_asked(self, span: TimedSpan, messages: Sequence[Message]) -> None:
        content = self._make.content
        if content is not None and messages and span.is_recording:
            span.set(self._make.both(names.INPUT_MESSAGES, names.INPUT_VALUE, content.messages(messages)))


def spans_of(events: Iterable[HarnessEvent | ReadEvent]) -> int:
    """How many spans an `AttemptWriter` makes that sees these from the first on."""
    count, is_calling = 1, False
    for event in events:
        if type(event) is TurnStarted:
            count += 2
            is_calling = True
        elif type(event) is MessageStarted:
            if event.role == "assistant" and not is_calling:
                count += 1
                is_calling = True
        elif type(event) is ToolStarted:
            count += 1
        elif type(event) is TurnEnded or (type(event) is MessageEnded and _is_assistants(event)):
            is_calling = False
    return count


def _is_assistants(event: MessageEnded) -> bool:
    """Of a message that was cut from the log, only an assistant's has usage or a reason."""
    if event.message is not None:
        return event.message.role == "assistant"
    return event.finish_reason is not None or event.usage is not None


def _model(model: str | None) -> Mapping[str, str]:
    """What spans say of a model `provider/id`; of one without an id nothing."""
    provider, _, model_id = (model or "").partition("/")
    return {names.PROVIDER: names.PROVIDERS.get(provider, provider), names.REQUEST_MODEL: model_id} if model_id else {}
