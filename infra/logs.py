"""Structured logs: for people on a terminal, one JSON object a line otherwise. Every line goes through the redactor.

Log with the standard library (`logging.getLogger(__name__)`) and give ids by `extra={"run_id": …}`, or bind them for a
task with `structlog.contextvars`; both become fields of the line, and so do the ids of the run that the task works off.
"""

import logging
import sys
from collections.abc import Collection, Mapping
from typing import Literal, TextIO

import structlog
from structlog.types import Processor

from agentstream.consumers.redaction import Redactor
from agentstream.infra.log_context import add_context
from agentstream.infra.log_json import JsonLines
from agentstream.infra.log_redaction import RedactedFields, RedactedLines
from agentstream.infra.log_repeats import CalmHandler

LogFormat = Literal["auto", "console", "json"]
_NOISY: Mapping[str, int] = {
    # Joining, fetching and metadata of every client at INFO: hundreds of lines a rebalance.
    "aiokafka": logging.WARNING,
    "httpx": logging.WARNING,
    "httpcore": logging.WARNING,
    "asyncio": logging.WARNING,
    "docker": logging.WARNING,
    "testcontainers": logging.WARNING,
    "urllib3": logging.WARNING,
    "opentelemetry": logging.WARNING,
    # A line or two for each export that fails: `telemetry.delivery` says it once. The other quotes headers it cannot
    # read, with the key that stands in them.
    "opentelemetry.exporter": logging.CRITICAL,
    "opentelemetry.util.re": logging.CRITICAL,
}


def configure_logs(
    level: str,
    *,
    log_format: LogFormat = "auto",
    redactor: Redactor | None = None,
    stream: TextIO | None = None,
    quieter: Collection[str] = (),
) -> None:
    """Send every log of this process to `stream` (stderr), from `level` up. Call it once, before work starts.

    Of the loggers in `quieter` only warnings are shown, and a library's repeated lines once in 10 s with their number,
    unless `level` is debug.
    """
    output, redactor = stream or sys.stderr, redactor or Redactor()
    for_people = log_format == "console" or (log_format == "auto" and output.isatty())
    handler = CalmHandler(output, _NOISY.keys() if level != "debug" else ())
    handler.setFormatter(_for_people(output, redactor) if for_people else JsonLines(redactor))
    if level != "debug":
        handler.addFilter(_is_worth_a_line)
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level.upper())
    for name, quietest in {**_NOISY, **dict.fromkeys(quieter, logging.WARNING)}.items():
        logging.getLogger(name).setLevel(logging.DEBUG if level == "debug" else max(quietest, root.level))
    logging.captureWarnings(capture=True)


def _is_worth_a_line(record: logging.LogRecord) -> bool:
    """aiokafka reports as errors what every new or restarted cluster answers at first, and tries again by itself."""
    if not record.name.startswith("aiokafka"):
        return True
    text = record.getMessage()
    return not any(name in text for name in ("GroupCoordinatorNotAvailableError", "NotCoordinatorForGroupError"))


def _for_people(output: TextIO, redactor: Redactor) -> logging.Formatter:
    fields: list[Processor] = [
        add_context,
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.stdlib.ExtraAdder(),
        structlog.processors.TimeStamper(fmt="%H:%M:%S", utc=False),
        structlog.processors.StackInfoRenderer(),
    ]
    last: list[Processor] = [
        structlog.stdlib.ProcessorFormatter.remove_processors_meta,
        RedactedFields(redactor),
        _console(output),
    ]
    return RedactedLines(structlog.stdlib.ProcessorFormatter(foreign_pre_chain=fields, processors=last), redactor)


def _console(output: TextIO) -> structlog.dev.ConsoleRenderer:
    # Rich's tracebacks show locals, and break a secret over two lines where no redactor finds it.
    return structlog.dev.ConsoleRenderer(
        colors=output.isatty(), pad_event_to=0, exception_formatter=structlog.dev.plain_traceback
    )
