"""How much memory a span holds, about: with content captured some hold a hundred times as much as others."""

from collections.abc import Iterator, Mapping, Sequence

from opentelemetry.sdk.trace import ReadableSpan

MAX_EXPORT_BYTES = 4 * 1024 * 1024
"""Of one request, about. 512 spans with content would be 100 MiB: collectors take 20 MiB, some gateways 5, and the
exporter itself throws away whole what is over 64."""
MAX_HELD_BYTES = 64 * 1024 * 1024
"""Of the spans that wait for one place or are under way to it, about."""
_PLAIN = 1_024
"""A span without texts; and far more than a number takes."""


def size_of(span: ReadableSpan) -> int:
    """Bytes, about: what its texts have, and something for the rest."""
    return _PLAIN + _texts(span.attributes) + sum(_texts(event.attributes) for event in span.events)


def pieces(spans: Sequence[ReadableSpan]) -> Iterator[tuple[Sequence[ReadableSpan], int]]:
    """Yield the spans in order, as many at once as fit into one request, with their size. One alone may be larger."""
    piece: list[ReadableSpan] = []
    size = 0
    for span in spans:
        more = size_of(span)
        if piece and size + more > MAX_EXPORT_BYTES:
            yield piece, size
            piece, size = [], 0
        piece.append(span)
        size += more
    if piece:
        yield piece, size


def _texts(attributes: Mapping[str, object] | None) -> int:
    return sum(_length(value) for value in (attributes or {}).values())


def _length(value: object) -> int:
    if isinstance(value, str):
        return len(value)
    return sum(map(_length, value)) if isinstance(value, tuple) else 0
