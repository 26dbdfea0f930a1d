"""Messages, tool arguments and results as span attributes: without secrets, and no larger than a backend takes.

Only made where the operator asked for content: by default no span holds a word that was said.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Final, TypeVar

from pydantic import JsonValue

from agentstream.consumers.redaction import Redactor
from agentstream.producers.spans import clean
from agentstream.schemas.messages import FinishReason, Message
from agentstream.schemas.span_names import OTHER

Output = tuple[Message, FinishReason | None]
"""What a model said, and why it ended there."""
Item = TypeVar("Item")
MAX_TEXT: Final = 8_192
"""Characters of one text inside a message, arguments or a result."""
SHORT_TEXT: Final = 256
"""The same in a message that is too large even so: it has many parts."""
MAX_ATTRIBUTE: Final = 16_384
"""Characters of one attribute. Collectors refuse requests of 20 MiB, and one may hold 512 spans."""
CUT: Final = "… [cut]"


class Content:
    """Shows what was said. Pure."""

    def __init__(self, redactor: Redactor) -> None:
        self._redactor = redactor

    def messages(self, messages: Sequence[Message]) -> str:
        """The newest of the messages that fit, in order, as JSON under the conventions' names; of the last at least who
        spoke."""
        return self._fitting([message.model_dump(mode="json", exclude_none=True) for message in messages])

    def outputs(self, said: Sequence[Output]) -> str:
        """The same of what a model said. Each says why it ended there: the conventions' schema wants it, and Phoenix
        shows none of the messages if one of them does not."""
        return self._fitting(
            [
                {**message.model_dump(mode="json", exclude_none=True), "finish_reason": reason or OTHER}
                for message, reason in said
            ]
        )

    def _fitting(self, messages: Sequence[Mapping[str, JsonValue]]) -> str:
        shown: list[str] = []
        size = 2
        for message in reversed(messages):
            text = self._newest(message) if not shown else self._json({**message}, MAX_TEXT)
            size += len(text) + 1
            if size > MAX_ATTRIBUTE:
                break
            shown.append(text)
        return f"[{','.join(reversed(shown))}]"

    def value(self, value: JsonValue) -> str:
        """Arguments or a result: a text as it is, anything else as JSON, which a cut may break."""
        if isinstance(value, str):
            return self._text(value, MAX_TEXT)
        shown = self._json(value, MAX_TEXT)
        return shown if len(shown) <= MAX_ATTRIBUTE else shown[:MAX_ATTRIBUTE] + CUT

    def _newest(self, message: Mapping[str, JsonValue]) -> str:
        sizes = (self._json({**message}, limit) for limit in (MAX_TEXT, SHORT_TEXT))
        nothing = self._json({**message, "parts": [{"type": "text", "content": CUT}]}, MAX_TEXT)
        return next((text for text in sizes if len(text) + 3 <= MAX_ATTRIBUTE), nothing)

    def _json(self, value: JsonValue, limit: int) -> str:
        return clean(json.dumps(self._cut(value, limit), ensure_ascii=False, separators=(",", ":")))

    def _cut(self, value: JsonValue, limit: int) -> JsonValue:
        match value:
            case str():
                return self._text(value, limit)
            case list():
                return [self._cut(item, limit) for item in _first(value)]
            case dict():
                return {self._text(key, limit): self._cut(item, limit) for key, item in _first(value.items())}
            case _:
                return value

    def _text(self, text: str, limit: int) -> str:
        # Redacted whole and cut after that: cut first, a secret's beginning would be left.
        shown = clean(self._redactor.text(text))
        return shown if len(shown) <= limit else shown[:limit] + CUT


def _first(items: Iterable[Item]) -> Iterable[Item]:
    return (item for place, item in enumerate(items) if place < 1_000)
