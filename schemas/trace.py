"""W3C trace context as it travels in headers.

Parsing is total: malformed headers start a fresh trace and never fail a request. The rules are those of
https://www.w3.org/TR/trace-context/ (version 00; higher versions are read as far as 00 goes).
"""

import re
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Self

_TRACEPARENT = re.compile(r"^(?!ff)([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(-.*)?$")
_NO_TRACE, _NO_SPAN = "0" * 32, "0" * 16
MAX_STATE_BYTES = 512
"""The specification asks that at least 512 characters of `tracestate` be carried; more is dropped."""
MAX_BAGGAGE_BYTES = 8_192
"""The baggage specification's bound; more is dropped."""


@dataclass(frozen=True, kw_only=True, slots=True)
class TraceContext:
    """One span's place in a trace."""

    trace_id: str
    """32 hex digits."""
    span_id: str
    """16 hex digits: the parent of whatever is made from this context."""
    flags: str = "01"
    """2 hex digits; bit 0 is `sampled`."""
    tracestate: str | None = None
    """Vendors' state, carried on as it is."""
    baggage: str | None = None
    """W3C baggage, carried on as it is."""

    @classmethod
    def fresh(cls) -> Self:
        """A new, sampled trace."""
        return cls(trace_id=secrets.token_hex(16), span_id=secrets.token_hex(8))

    @classmethod
    def parse(cls, headers: Mapping[str, bytes]) -> Self | None:
        """The context in the headers, or None where there is none or it is malformed."""
        raw = headers.get("traceparent", b"").decode("ascii", "replace").strip()
        match = _TRACEPARENT.match(raw)
        if match is None:
            return None
        version, trace_id, span_id, flags, more = match.groups()
        if trace_id == _NO_TRACE or span_id == _NO_SPAN or (version == "00" and more):
            return None
        return cls(
            trace_id=trace_id,
            span_id=span_id,
            flags=flags,
            tracestate=_text(headers.get("tracestate"), MAX_STATE_BYTES),
            baggage=_text(headers.get("baggage"), MAX_BAGGAGE_BYTES),
        )

    @property
    def traceparent(self) -> str:
        """The header's value."""
        return f"00-{self.trace_id}-{self.span_id}-{self.flags}"

    def child(self) -> Self:
        """A new span id in the same trace."""
        return self.with_span(secrets.token_hex(8))

    def with_span(self, span_id: str) -> Self:
        """A given span, 16 hex digits, of the same trace."""
        # Each attempt has one: `replace` goes through the fields one by one, in Python.
        return type(self)(
            trace_id=self.trace_id,
            span_id=span_id,
            flags=self.flags,
            tracestate=self.tracestate,
            baggage=self.baggage,
        )

    def to_headers(self) -> list[tuple[str, bytes]]:
        """`traceparent` and, where present, `tracestate` and `baggage`."""
        headers = [("traceparent", self.traceparent.encode())]
        if self.tracestate:
            headers.append(("tracestate", self.tracestate.encode()))
        if self.baggage:
            headers.append(("baggage", self.baggage.encode()))
        return headers


def _text(raw: bytes | None, limit: int) -> str | None:
    # Printable ASCII only: it is sent on in HTTP headers, where a line's end would begin another one.
    text = raw.decode("ascii", "replace") if raw and len(raw) <= limit else ""
    return text if text.isascii() and text.isprintable() and text else None
