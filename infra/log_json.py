"""A line of the log as one JSON object.

By structlog's chain of processors, which copies the record and looks for secrets in each field, the two lines of a run
took 58 µs, three times as long.
"""

import json
import logging
from datetime import UTC, datetime
from typing import Final

from pydantic_core import to_json
from structlog.tracebacks import ExceptionDictTransformer
from structlog.types import EventDict

from agentstream.consumers.redaction import Redactor
from agentstream.infra.log_context import with_context
from agentstream.infra.log_redaction import RedactedFields

_OF_EVERY_RECORD: Final = frozenset(logging.makeLogRecord({}).__dict__)
_PLAIN: Final = frozenset({str, int, float, bool, type(None), datetime})


class JsonLines(logging.Formatter):
    """Makes JSON of records: what happened, the fields of the task and of the line, the time (UTC). Immutable.

    Of two fields of one name the line's own is shown. An object of another type is shown as its `repr`.
    """

    def __init__(self, redactor: Redactor) -> None:
        super().__init__()
        self._redactor = redactor
        self._redacted = RedactedFields(redactor)
        # Without locals: they hold requests, and settings.
        self._exception = ExceptionDictTransformer(show_locals=False)

    def format(self, record: logging.LogRecord) -> str:
        fields = self._fields(record)
        line = _json(fields)
        # A text without escapes stands in the line as it is: one search finds what one of each field would. Behind
        # escapes a secret may hide that was escaped before, as in an answer that is quoted.
        if "\\" in line:
            line = _json(self._redacted.of(fields))
        return self._redactor.text(line)

    def _fields(self, record: logging.LogRecord) -> EventDict:
        fields = with_context(record, {"event": record.getMessage()})
        fields["level"] = record.levelname.lower()
        fields["logger"] = record.name
        for name, value in record.__dict__.items():
            if name not in _OF_EVERY_RECORD:
                fields[name] = value
        fields["timestamp"] = datetime.now(UTC)
        if record.stack_info:
            fields["stack"] = record.stack_info
        if record.exc_info and record.exc_info[0]:
            fields["exception"] = self._exception(record.exc_info)
        return fields


def _json(fields: EventDict) -> str:
    # `to_json` takes a fifth of the time, but shows of an object also what its `repr` leaves out, a secret perhaps.
    if _PLAIN.issuperset(map(type, fields.values())):
        try:
            return to_json(fields).decode()
        except ValueError:
            # Half a character has no UTF-8: of a JavaScript string that was cut in mid-emoji, or of a file's name.
            pass
    return json.dumps(fields, ensure_ascii=False, separators=(",", ":"), default=_text)


def _text(value: object) -> str:
    return value.isoformat().replace("+00:00", "Z") if isinstance(value, datetime) else repr(value)
