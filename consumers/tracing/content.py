"""Messages, tool arguments and results as span attributes: without secrets, and no larger than a backend takes.

Only made where the operator asked for content: by default no span holds a word that was said.
"""

import json
from collections.abc import Iterable, Sequence
from typing import Final, TypeVar

from pydantic import JsonValue

from agentstream.consumers.redaction import Redactor
from agentstream.producers.spans import clean
from agentstream.schemas.messages import Message

Item = TypeVar("Item")
MAX_TEXT: Final = 8_192
"""Characters of one text inside a message, arguments or a result."""
MAX_ATTRIBUTE: Final = 65_536
"""Characters of one attribute. Collectors refuse requests above a few MiB, and a batch holds hundreds of spans."""
CUT: Final = "… [cut]"


class Content:
    """Shows what was said. Pure."""

    def __init__(self, redactor: Redactor) -> None:
        self._redactor = redactor

    def messages(self, messages: Sequence[Message]) -> str:
        """The newest of the messages that fit, in order, as JSON under the conventions' names."""
        shown: list[str] = []
        size = 2
        for message in reversed(messages):
            text = self._json(message.model_dump(mode="json", exclude_none=True))
            size += len(text) + 1
            if size > MAX_ATTRIBUTE:
                break
            shown.append(text)
        return f"[{','.join(reversed(shown))}]"

    def value(self, value: JsonValue) -> str:
        """Arguments or a result: a text as it is, anything else as JSON."""
        return self._text(value) if isinstance(value, str) else self._json(value)[:MAX_ATTRIBUTE]

    def _json(self, value: JsonValue) -> str:
        return clean(json.dumps(self._cut(value), ensure_ascii=False, separators=(",", ":")))

    def _cut(self, value: JsonValue) -> JsonValue:
        match value:
            case str():
                return self._text(value)
            case list():
                return [self._cut(item) for item in _first(value)]
            case dict():
                return {self._text(key): self._cut(item) for key, item in _first(value.items())}
            case _:
                return value

    def _text(self, text: str) -> str:
        # Redacted whole and cut after that: cut first, a secret's beginning would be left.
        shown = clean(self._redactor.text(text))
        return shown if len(shown) <= MAX_TEXT else shown[:MAX_TEXT] + CUT


def _first(items: Iterable[Item]) -> Iterable[Item]:
    return (item for place, item in enumerate(items) if place < 1_000)
