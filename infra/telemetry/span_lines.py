"""Spans as lines of JSON in a local directory, for `agentstream trace`: the form, the file's names, and how to read it.

One object a line; fields that are empty are left out. The form is ours (OTLP's JSON has a level more of everything):

    trace_id, span_id, parent_id   hex digits; parent_id absent: a root
    name, kind                     kind: internal, server, client, producer, consumer
    start_ns, end_ns               nanoseconds since 1970
    status, status_detail          status: unset, ok, error
    attributes                     name -> text, number, truth value, or a list of them
    events                         [{name, time_ns, attributes}]
    links                          [{trace_id, span_id, attributes}]
    resource                       attributes of the process
Readers ignore fields they do not know, and lines they cannot read: the last one may be cut.
"""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final, Literal

from pydantic import BaseModel, ConfigDict, JsonValue, ValidationError

FILE: Final = "spans.jsonl"
OLDER_FILE: Final = "spans.1.jsonl"
"""What FILE becomes when it is full; the one of that name before is gone."""

Attributes = Mapping[str, JsonValue]


class _Line(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore")


class SpanEventLine(_Line):
    """Something that happened during a span."""

    name: str
    """What."""
    time_ns: int
    """When, nanoseconds since 1970."""
    attributes: Attributes = {}
    """More about it."""


class SpanLinkLine(_Line):
    """Another span that has to do with this one."""

    trace_id: str
    """Its trace."""
    span_id: str
    """The span."""
    attributes: Attributes = {}
    """More about it."""


class SpanLine(_Line):
    """A span that has ended."""

    trace_id: str
    """32 hex digits."""
    span_id: str
    """16 hex digits."""
    parent_id: str | None = None
    """The span above it; None: a root."""
    name: str
    """What it is called."""
    kind: Literal["internal", "server", "client", "producer", "consumer"] = "internal"
    """OpenTelemetry's kind."""
    start_ns: int
    """When it began, nanoseconds since 1970."""
    end_ns: int
    """When it ended."""
    status: Literal["unset", "ok", "error"] = "unset"
    """How it ended."""
    status_detail: str | None = None
    """Why, for errors."""
    attributes: Attributes = {}
    """What is known about it."""
    events: tuple[SpanEventLine, ...] = ()
    """What happened during it."""
    links: tuple[SpanLinkLine, ...] = ()
    """Other spans that have to do with it."""
    resource: Attributes = {}
    """The process that made it."""


def read_spans(directory: Path) -> Iterator[SpanLine]:
    """Yield the spans in the directory, in the order in which they were written: of siblings the one that ended first.

    Nothing is there: nothing is yielded. Raises OSError for files that cannot be read.
    """
    for name in (OLDER_FILE, FILE):
        path = directory / name
        if not path.is_file():
            continue
        with path.open(encoding="utf-8", errors="replace") as lines:
            for line in lines:
                try:
                    yield SpanLine.model_validate_json(line)
                except ValidationError:
                    continue
