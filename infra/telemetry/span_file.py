"""Spans into a local directory, bounded: when the file is full it becomes the older one, and the older one is gone."""

import errno
import fcntl
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult
from opentelemetry.trace import format_span_id, format_trace_id
from pydantic import JsonValue

from agentstream.infra.telemetry.span_lines import FILE, OLDER_FILE

MAX_BYTES: Final = 16 * 1024 * 1024
"""Of each of the two files."""
_ROOT: Final = 0


class FileSpanExporter(SpanExporter):
    """Appends spans to `spans.jsonl`. Several processes may share a directory."""

    def __init__(self, directory: Path) -> None:
        """Make the directory, for this user alone: spans may hold what was said.

        Raises OSError if it cannot, and for one that is somebody else's: below /tmp anybody may have made it before.
        """
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        for each in (directory, directory.parent):
            if each.stat().st_uid not in (os.geteuid(), _ROOT):
                raise PermissionError(f"{each} belongs to another user")
        self._directory = directory

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        """Append them. Raises OSError, such as for a full disk."""
        path = self._directory / FILE
        with self._alone():
            size, piece = path.stat().st_size if path.exists() else 0, b""
            for line in map(_line, spans):
                if size + len(piece) + len(line) > MAX_BYTES:
                    _append(path, piece)
                    if path.exists():
                        path.replace(self._directory / OLDER_FILE)
                    size, piece = 0, b""
                piece += line
            _append(path, piece)
        return SpanExportResult.SUCCESS

    def shutdown(self) -> None:
        """Nothing is open."""

    def force_flush(self, timeout_millis: int = 30_000) -> bool:
        """Nothing is kept here."""
        return True

    @contextmanager
    def _alone(self) -> Iterator[None]:
        with open(self._directory / "lock", "ab", opener=_private) as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield


def _append(path: Path, piece: bytes) -> None:
    """In one piece, so that a reader sees whole lines, except for the last one."""
    with open(path, "ab", buffering=0, opener=_private) as file:
        if file.write(piece) != len(piece):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def _private(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NOFOLLOW, mode=0o600)


def _line(span: ReadableSpan) -> bytes:
    context, parent = span.context, span.parent
    fields: dict[str, JsonValue] = {
        "trace_id": format_trace_id(context.trace_id) if context is not None else "",
        "span_id": format_span_id(context.span_id) if context is not None else "",
        "parent_id": None if parent is None else format_span_id(parent.span_id),
        "name": span.name,
        "kind": span.kind.name.lower(),
        "start_ns": span.start_time,
        "end_ns": span.end_time,
        "status": span.status.status_code.name.lower(),
        "status_detail": span.status.description,
        "attributes": _plain(span.attributes),
        "events": [
            {"name": event.name, "time_ns": event.timestamp, "attributes": _plain(event.attributes)}
            for event in span.events
        ],
        "links": [
            {
                "trace_id": format_trace_id(link.context.trace_id),
                "span_id": format_span_id(link.context.span_id),
                "attributes": _plain(link.attributes),
            }
            for link in span.links
        ],
        "resource": _plain(span.resource.attributes),
    }
    written = {name: value for name, value in fields.items() if value not in (None, {}, [])}
    return json.dumps(written, ensure_ascii=False, separators=(",", ":"), default=str).encode(errors="replace") + b"\n"


def _plain(attributes: Mapping[str, object] | None) -> dict[str, JsonValue]:
    return {name: list(value) if isinstance(value, tuple) else value for name, value in (attributes or {}).items()}  # type: ignore[misc]
