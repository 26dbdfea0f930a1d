"""Known secret values never leave: they are replaced in every text on its way out.

Redactor            texts and models that are complete
Redactor.stream()   a text that arrives in pieces, with a secret perhaps split over two of them
"""

import base64
import json
import re
from collections.abc import Iterable
from typing import Final, TypeVar
from urllib.parse import quote, quote_plus

from pydantic import JsonValue, ValidationError

from agentstream.schemas.base import WireModel
from agentstream.schemas.errors import ErrorCode

AnyModel = TypeVar("AnyModel", bound=WireModel)
REDACTED: Final = "[redacted]"
MIN_SECRET: Final = 8
"""Shorter values are left alone: a key named `test` would else take that word out of every answer, and nothing that
short protects anything."""
_IDS: Final = frozenset({"run_id", "session_id", "parent_run_id", "redrive_of", "attempt_id", "trace_id"})
"""Kept at the top of a model: the caller chose the ids and must find them again."""
_WIRE_WORDS: Final = (
    *ErrorCode,
    "completed",
    "cancelled",
    "assistant",
    "tool_call_response",
    "content_filter",
    "reasoning",
)
"""A secret inside one of these words is no secret, and replacing it would break the schema."""


class Redactor:
    """Replaces known secrets, plain and in their JSON-escaped, URL-encoded and base64 forms. Immutable.

    Of several that overlap the leftmost is replaced, of those the longest.
    """

    def __init__(self, secrets: Iterable[str] = ()) -> None:
        forms = {form for secret in secrets if len(secret) >= MIN_SECRET for form in _forms(secret)}
        self._forms = tuple(sorted(forms, key=lambda form: (-len(form), form)))
        self._pattern = re.compile("|".join(map(re.escape, self._forms)) or r"(?!)")
        self._by_first: dict[str, list[str]] = {}
        for form in self._forms:
            self._by_first.setdefault(form[0], []).append(form)
        self._first = re.compile("|".join(map(re.escape, self._by_first)) or r"(?!)")
        self._longest = len(self._forms[0]) if self._forms else 0

    @property
    def pattern(self) -> re.Pattern[str]:
        """One expression for all forms of all secrets; it matches nothing where there are none."""
        return self._pattern

    def found_in(self, text: str) -> bool:
        """Whether a secret stands in the text."""
        # For five secrets (20 forms) and 1 MiB of text this takes 1.3 ms, one search with the alternation 12 ms. Most
        # texts are a few words, eight in each line of the log alone: with `any` those took twice as long.
        for form in self._forms:  # noqa: SIM110
            if form in text:
                return True
        return False

    def found_in_any(self, texts: Iterable[str]) -> bool:
        """Whether a secret may stand in one of the texts; not if it is no."""
        return bool(self._forms) and self.found_in("\n".join(texts))

    def text(self, text: str) -> str:
        """The text without secrets."""
        return self._pattern.sub(REDACTED, text) if self.found_in(text) else text

    def model(self, model: AnyModel) -> AnyModel:
        """The model without secrets in its texts; the same object where there are none."""
        if not self._forms or not self.found_in(model.to_bytes().decode()):
            return model
        dumped: dict[str, JsonValue] = model.model_dump(exclude_none=True)
        data = {key: value if key in _IDS else self._value(value) for key, value in dumped.items()}
        try:
            return type(model).model_validate(data)
        except ValidationError as error:
            # A secret inside a field with a pattern of its own. Nothing may leave rather than the secret.
            raise ValueError(f"{type(model).__name__}: a secret stands in a field that cannot be redacted") from error

    def stream(self) -> "StreamRedactor":
        """A redactor for one text that arrives in pieces."""
        return StreamRedactor(self)

    def _value(self, value: JsonValue) -> JsonValue:
        match value:
            case str():
                return self.text(value)
            case list() | tuple():
                return [self._value(item) for item in value]
            case dict():
                return {self.text(key): self._value(item) for key, item in value.items()}
            case _:
                return value

    def split(self, text: str) -> tuple[str, str]:
        """Of a text that may go on: its beginning, redacted, and an end that may be a secret's start."""
        if not self._forms and (text.isascii() or not _ends_in_half(text)):
            return text, ""
        if not self.found_in(text):  # nearly always
            held = self._open_from(text, 0)
            return text[:held], text[held:]
        done: list[str] = []
        start = 0
        while True:
            match = self._pattern.search(text, start)
            held = self._open_from(text, start)
            if match is None or held <= match.start():
                done.append(text[start:held])
                return "".join(done), text[held:]
            done += [text[start : match.start()], REDACTED]
            start = match.end()

    def _open_from(self, text: str, start: int) -> int:
        """Where the first end of the text begins that a longer text could make a secret of."""
        # Only where a form's first character stands: to look at each of the last hundred takes 5 µs a delta.
        for match in self._first.finditer(text, max(start, len(text) - self._longest + 1)):
            at = match.start()
            rest = len(text) - at
            for form in self._by_first[match[0]]:
                if rest < len(form) and form.startswith(text[at:]):
                    return at
        return len(text) - _ends_in_half(text)


class StreamRedactor:
    """Redacts one text piece by piece: what it gives, joined, is what `Redactor.text` makes of the whole."""

    __slots__ = ("_held", "_redactor")

    def __init__(self, redactor: Redactor) -> None:
        self._redactor = redactor
        self._held = ""

    def feed(self, piece: str) -> str:
        """What is safe to show now; an end that may be the start of a secret is held back."""
        shown, self._held = self._redactor.split(self._held + piece)
        return shown

    def finish(self) -> str:
        """The rest."""
        if not self._held:
            return ""
        rest, self._held = self._redactor.text(self._held), ""
        return rest


def _ends_in_half(text: str) -> bool:
    """Of a character outside the BMP, as a JavaScript string cut in mid-emoji: the other half comes next."""
    return "\ud800" <= text[-1:] <= "\udbff"


def _forms(secret: str) -> set[str]:
    forms = {secret, quote(secret, safe=""), quote(secret), quote_plus(secret)}
    forms |= {json.dumps(secret)[1:-1], json.dumps(secret, ensure_ascii=False)[1:-1]}
    raw = secret.encode("utf-8", "surrogatepass")
    for shift in range(3):
        # Base64 of the secret inside a longer text depends on where it starts, modulo 3: `Basic` of `user:key` holds
        # one of three forms. The first and last characters mix with the neighbours' bits and are left out.
        skip, end = -(-shift * 8 // 6), (shift + len(raw)) * 8 // 6
        for encode in (base64.b64encode, base64.urlsafe_b64encode):
            forms.add(encode(b"\0" * shift + raw).decode()[skip:end])
    return {form for form in forms if len(form) >= MIN_SECRET and not any(form in word for word in _WIRE_WORDS)}
