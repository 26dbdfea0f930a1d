"""Spans as a tree, and the tree as lines: for `agentstream trace` and the demo. Pure."""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

from agentstream.infra.telemetry.span_lines import SpanLine
from agentstream.schemas import span_names as names

BAR_CELLS = 24
_MS = 1_000_000
_TOKENS = (
    (names.INPUT_TOKENS, names.OUTPUT_TOKENS),
    (names.AGGREGATED_INPUT_TOKENS, names.AGGREGATED_OUTPUT_TOKENS),
)
_ATTEMPTS_BEFORE = frozenset({"retried_attempt", "lost_attempt"})


@dataclass(frozen=True, kw_only=True, slots=True)
class Row:
    """One span, as it is drawn."""

    stem: str
    """The branches left of it."""
    name: str
    """The span's name."""
    began: str
    """How long after the first span."""
    took: str
    """How long it lasted."""
    bar: str
    """Where it lies in the whole."""
    notes: str
    """Tokens, codes, who wrote it."""
    failed: bool
    """Whether it ended as an error."""


def of_run(spans: Iterable[SpanLine], wanted: str) -> list[SpanLine]:
    """The spans of a run, by its id, or of a trace, by its id or the first eight digits or more of it.

    Of a run: its whole trace, but for what carries another run's id: a caller may send many requests in one trace.
    """
    everything = list(spans)
    runs_traces = {each.trace_id for each in everything if each.attributes.get(names.RUN_ID) == wanted}
    if runs_traces:
        return [
            each
            for each in everything
            if each.trace_id in runs_traces and each.attributes.get(names.RUN_ID, wanted) == wanted
        ]
    if len(wanted) < 8:
        return []
    return [each for each in everything if each.trace_id.startswith(wanted.lower())]


def rows(spans: Sequence[SpanLine]) -> Iterator[Row]:
    """Draw them: parents above children, siblings by their beginning. A span whose parent is elsewhere is a root."""
    if not spans:
        return
    here = {each.span_id for each in spans}
    below: dict[str | None, list[SpanLine]] = defaultdict(list)
    for each in sorted(spans, key=lambda span: (span.start_ns, -span.end_ns)):
        below[each.parent_id if each.parent_id in here and each.parent_id != each.span_id else None].append(each)
    first = min(each.start_ns for each in spans)
    last = max(each.end_ns for each in spans)

    def draw(span: SpanLine, stem: str, under: str) -> Iterator[Row]:
        yield _row(span, stem, first, last)
        children = below.pop(span.span_id, [])
        for child, following in pairwise([*children, None]):
            if child is not None:
                tip, rest = ("├ ", "│ ") if following is not None else ("└ ", "  ")
                yield from draw(child, under + tip, under + rest)

    for root in below.pop(None, []):
        yield from draw(root, "", "")


def summary(spans: Sequence[SpanLine]) -> str:
    """One line about them."""
    took = max(each.end_ns for each in spans) - min(each.start_ns for each in spans)
    traces = {each.trace_id for each in spans}
    failed = sum(each.status == "error" for each in spans)
    attempts = sum(each.name.startswith(names.INVOKE_AGENT) for each in spans)
    parts = [
        f"trace {next(iter(traces))}" if len(traces) == 1 else f"{len(traces)} traces",
        f"{len(spans)} spans",
        f"{attempts} attempt{'' if attempts == 1 else 's'}",
        duration(took),
    ]
    return ", ".join([*parts, f"{failed} failed"] if failed else parts)


def duration(nanoseconds: int) -> str:
    """For people: 850 µs, 12.3 ms, 4.21 s, 3 min 20 s."""
    ms = nanoseconds / _MS
    if ms < 1:
        return f"{nanoseconds / 1000:.0f} µs"
    if ms < 1_000:
        return f"{ms:.1f} ms" if ms < 100 else f"{ms:.0f} ms"
    if ms < 60_000:
        return f"{ms / 1000:.2f} s"
    return f"{int(ms // 60_000)} min {int(ms % 60_000 // 1000)} s"


def _row(span: SpanLine, stem: str, first: int, last: int) -> Row:
    whole = max(1, last - first)
    begin = min(BAR_CELLS - 1, (span.start_ns - first) * BAR_CELLS // whole)
    cells = max(1, round((span.end_ns - span.start_ns) * BAR_CELLS / whole))
    return Row(
        stem=stem,
        name=span.name,
        began=f"+{duration(span.start_ns - first)}",
        took=duration(span.end_ns - span.start_ns),
        bar=(" " * begin + "█" * min(cells, BAR_CELLS - begin)).ljust(BAR_CELLS),
        notes=", ".join(_notes(span)),
        failed=span.status == "error",
    )


def _notes(span: SpanLine) -> Iterator[str]:
    yield from _how_it_ended(span)
    facts = span.attributes
    if names.PARTITION in facts and names.OFFSET in facts:
        yield f"at {facts[names.PARTITION]}/{facts[names.OFFSET]}"
    for read, written in _TOKENS:
        if read in facts:
            yield f"{facts[read]} tokens in, {facts.get(written, 0)} out"
    if isinstance(chunk := facts.get(names.TIME_TO_FIRST_CHUNK), int | float):
        yield f"first piece after {duration(int(chunk * 1e9))}"
    if names.COST in facts:
        yield f"{facts[names.COST]} {facts.get(names.COST_CURRENCY, '')}".rstrip()
    for link in span.links:
        if (other := link.attributes.get(names.LINK)) in _ATTEMPTS_BEFORE:
            yield f"after a {str(other).replace('_', ' ')}"


def _how_it_ended(span: SpanLine) -> Iterator[str]:
    facts, status = span.attributes, span.attributes.get(names.RUN_STATUS)
    if (code := facts.get(names.ERROR_TYPE)) is not None:
        detail = span.status_detail
        yield f"{code}: {detail}" if detail and detail != code else str(code)
    elif span.status == "error":
        yield span.status_detail or "failed"
    elif isinstance(status, str) and status != "completed":
        yield status
    if facts.get(names.DUPLICATE):
        yield "a duplicate, does not run again"
    if facts.get(names.LOST):
        yield "written by the next owner"
    if isinstance(strikes := facts.get(names.STRIKES), int) and strikes:
        yield f"{strikes} worker{'' if strikes == 1 else 's'} lost before"
