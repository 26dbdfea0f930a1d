"""No known secret leaves by the log: neither in a line's fields nor in the finished line."""

import logging
from collections.abc import MutableMapping

from structlog.types import EventDict, WrappedLogger

from agentstream.consumers.redaction import Redactor


class RedactedFields:
    """Replaces secrets in the texts of a line's fields, at any depth."""

    def __init__(self, redactor: Redactor) -> None:
        self._redactor = redactor

    def __call__(self, _logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
        return self.of(event)

    def of(self, fields: EventDict) -> EventDict:
        """The fields without secrets."""
        return {name: self._clean(value) for name, value in fields.items()}

    def _clean(self, value: object) -> object:
        if isinstance(value, str):
            return self._redactor.text(value)
        if isinstance(value, MutableMapping):
            return {key: self._clean(item) for key, item in value.items()}
        if isinstance(value, list | tuple):
            return [self._clean(item) for item in value]
        return value


class RedactedLines(logging.Formatter):
    """The last sieve: a traceback for people is rendered late, and an object's own text later still."""

    def __init__(self, inner: logging.Formatter, redactor: Redactor) -> None:
        super().__init__()
        self._inner = inner
        self._redactor = redactor

    def format(self, record: logging.LogRecord) -> str:
        return self._redactor.text(self._inner.format(record))
