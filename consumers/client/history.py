"""What a conversation has come to: the messages that the next turn is asked with. Pure.

    after_turn(before, new, said)   one more turn
    rebuilt(turns)                  a whole session, from its requests and results

A turn that the agent said nothing in, because it failed or was stopped, leaves nothing: the next one is asked as if it
had not been. A tool call that was never answered is cut off with all that follows it: providers refuse it.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from agentstream.schemas.messages import Message, TextPart, ToolCallPart, ToolCallResponsePart

Messages = tuple[Message, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class RecordedTurn:
    """A request of a session, and what came of it."""

    asked: Messages
    """Its messages: only the new turn, or the whole conversation."""
    said: Messages | None
    """What the agent added; None: its result is no longer on the log."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Rebuilt:
    """A conversation as it was recorded."""

    messages: Messages
    """What the next turn is asked with, before it."""
    lost: int
    """Turns that are left out since their results are gone."""


def after_turn(before: Messages, new: Messages, said: Sequence[Message]) -> Messages:
    """The conversation, with what was asked and what the agent said to it, if it said anything."""
    answer = whole(said)
    return (*before, *new, *answer) if answer else before


def rebuilt(turns: Iterable[RecordedTurn]) -> Rebuilt:
    """The conversation that these turns are. One that carries an answer of the agent's is the conversation so far.

    Its caller may have shortened what was before. One that does not was sent by a caller who keeps no history: it is
    put behind what there is.
    """
    messages: Messages = ()
    lost = 0
    for turn in turns:
        before, new = _parted(turn.asked)
        if before:
            messages, lost = before, 0
        else:
            new = tuple(each for each in new if each.role != "system" or each not in messages)
        if turn.said is None:
            lost += 1
        else:
            messages = after_turn(messages, new, turn.said)
    return Rebuilt(messages=messages, lost=lost)


def carries_history(asked: Messages) -> bool:
    """Whether these messages are a conversation so far, and not only its newest turn."""
    return bool(_parted(asked)[0])


def whole(said: Sequence[Message]) -> Messages:
    """What an agent said, as far as it can be sent again."""
    answered = {part.id for message in said for part in message.parts if isinstance(part, ToolCallResponsePart)}
    kept: list[Message] = []
    for message in said:
        if any(isinstance(part, ToolCallPart) and part.id not in answered for part in message.parts):
            break
        kept.append(message)
    while kept and not _says_something(kept[-1]):
        kept.pop()
    return tuple(kept)


def _parted(asked: Messages) -> tuple[Messages, Messages]:
    """The conversation up to the agent's last message, and what is new."""
    last = max((place for place, message in enumerate(asked) if message.role == "assistant"), default=-1)
    return asked[: last + 1], asked[last + 1 :]


def _says_something(message: Message) -> bool:
    """Thoughts alone are no answer: a run that was stopped while its model still thought has none."""
    return any(
        part.content.strip() if isinstance(part, TextPart) else part.type != "reasoning" for part in message.parts
    )
