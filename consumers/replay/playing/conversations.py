"""What a later turn of a session is asked with: the history as it was recorded, or as the replay has answered so far.

A recorded turn fits onto the replay if it begins with the conversation before it, whole or as text alone (many callers
keep what was said, not which tools were called), and then adds only what its user said. Else it is asked with the
recorded history, and marked as broken; later turns go on from there.
"""

from dataclasses import dataclass

from agentstream.consumers.replay.playing.tape import canonical
from agentstream.schemas.messages import Message, ReasoningPart, TextPart
from agentstream.schemas.recordings import Conversation, RecordedRun
from agentstream.schemas.results import InvokeResult


@dataclass(frozen=True, kw_only=True, slots=True)
class Asked:
    """What a run is asked with."""

    messages: tuple[Message, ...]
    """History and the new turn."""
    conversation: Conversation
    """Whose history that is."""


@dataclass(frozen=True, kw_only=True, slots=True)
class _Turn:
    recorded: RecordedRun
    sent: tuple[Message, ...]
    result: InvokeResult


class RelivedSession:
    """The conversation of one session in one repeat."""

    def __init__(self) -> None:
        self._last: _Turn | None = None

    def asked(self, run: RecordedRun) -> Asked:
        """What this turn is asked with. Earlier turns must have been `answered`."""
        last, recorded = self._last, run.request.messages
        if last is None:
            return Asked(messages=recorded, conversation="recorded" if run.turn == 0 else "broken")
        continued = None if last.recorded.turn + 1 != run.turn else _continued(last, recorded)
        if continued is None:
            return Asked(messages=recorded, conversation="broken")
        return Asked(messages=continued, conversation="relived")

    def answered(self, run: RecordedRun, asked: Asked, result: InvokeResult) -> None:
        """What came of it."""
        self._last = _Turn(recorded=run, sent=asked.messages, result=result)


def _continued(last: _Turn, recorded: tuple[Message, ...]) -> tuple[Message, ...] | None:
    then = last.recorded.result
    if then is None or last.result.status != "completed":
        return None
    for of in (_whole, _as_text):
        before = (*last.recorded.request.messages, *of(then.messages))
        added = recorded[len(before) :]
        if _same(recorded[: len(before)], before) and added and all(each.role == "user" for each in added):
            return (*last.sent, *of(last.result.messages), *added)
    return None


def _whole(messages: tuple[Message, ...]) -> tuple[Message, ...]:
    return messages


def _as_text(messages: tuple[Message, ...]) -> tuple[Message, ...]:
    """The last thing that was said."""
    text = next((each.text for each in reversed(messages) if each.role == "assistant" and each.text), "")
    return (Message.of_text("assistant", text),) if text else ()


def _same(some: tuple[Message, ...], others: tuple[Message, ...]) -> bool:
    return [_plain(one) for one in some] == [_plain(other) for other in others]


def _plain(message: Message) -> str:
    """Without reasoning, which callers rarely send back, and with text joined."""
    rest = [part for part in message.parts if not isinstance(part, ReasoningPart | TextPart)]
    return canonical([message.role, message.text, *(part.model_dump(mode="json") for part in rest)])
