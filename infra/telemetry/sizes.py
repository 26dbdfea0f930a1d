"""How much memory a span holds, about: with content captured some hold a hundred times as much as others."""

from collections.abc import Mapping

from opentelemetry.sdk.trace import ReadableSpan

MAX_EXPORT_BYTES = 4 * 1024 * 1024
"""Of one request, about. 512 spans with content would be 100 MiB: collectors take 20 MiB, some gateways 5, and the
exporter itself throws away whole what is over 64."""
MAX_HELD_BYTES = 64 * 1024 * 1024
"""Of the spans that wait for one place or are under way to it, about."""
_LISTS = (list, tuple)
_PLAIN = 1_024
"""A span without texts; and far more than a number takes."""


def size_of(span: ReadableSpan) -> int:
    """Bytes, about: what its texts have, and something for the rest."""
    size = _PLAIN + _texts(span.attributes)
    for event in span.events:
        if event.attributes:
            size += _texts(event.attributes)
    return size


def _texts(attributes: Mapping[str, object] | None) -> int:
    size = 0
    for value in (attributes or {}).values():
        if type(value) is str:
            size += len(value)
        elif isinstance(value, _LISTS):
            size += sum(len(each) for each in value if isinstance(each, str))
    return size
