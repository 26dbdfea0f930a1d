"""Distributions as inline SVG: numbers as two histograms on one axis, passes as one bar."""

from collections.abc import Sequence
from html import escape

from agentstream.consumers.replay.comparing.columns import Column

_WIDTH, _HEIGHT, _BINS = 520, 120, 26


def picture(found: Column, unit: str) -> str:
    """The column as a picture; an empty string without cases."""
    if not found.worths:
        return ""
    if found.kind == "passed" and found.single:
        return _bar(found)
    before, now = [w.baseline for w in found.worths], [w.candidate for w in found.worths]
    return _histograms(before, now, unit)


def _bar(found: Column) -> str:
    counts = (
        ("both", "both pass", sum(w.baseline == w.candidate == 1.0 for w in found.worths)),
        ("better", "better", sum(w.candidate > w.baseline for w in found.worths)),
        ("worse", "worse", sum(w.candidate < w.baseline for w in found.worths)),
        ("neither", "both fail", sum(w.baseline == w.candidate == 0.0 for w in found.worths)),
    )
    x, parts = 0.0, []
    for kind, words, count in counts:
        width = _WIDTH * count / len(found.worths)
        if count:
            parts.append(
                f'<rect class="{kind}" x="{x:.1f}" y="0" width="{width:.1f}" height="22">'
                f"<title>{words}: {count}</title></rect>"
            )
        x += width
    legend = " · ".join(f"{words} {count}" for _, words, count in counts)
    return _svg(26, parts, legend) + f'<p class="legend">{legend}</p>'


def _histograms(before: Sequence[float], now: Sequence[float], unit: str) -> str:
    low, high = min(*before, *now), max(*before, *now)
    if low == high:
        return f'<p class="legend">{low:.4g} {escape(unit)} throughout</p>'
    width = (high - low) / _BINS or 1.0
    heights = [[0] * _BINS for _ in range(2)]
    for side, values in enumerate((before, now)):
        for value in values:
            heights[side][min(_BINS - 1, int((value - low) / width))] += 1
    tallest = max(map(max, heights))
    step = _WIDTH / _BINS
    parts = [
        f'<rect class="side{side}" x="{place * step:.1f}" y="{_HEIGHT - _HEIGHT * count / tallest:.1f}" '
        f'width="{step - 1:.1f}" height="{_HEIGHT * count / tallest:.1f}"><title>{count} from '
        f"{low + place * width:.4g} to {low + (place + 1) * width:.4g}</title></rect>"
        for side in range(2)
        for place, count in enumerate(heights[side])
        if count
    ]
    words = f"{low:.4g} to {high:.4g} {escape(unit)}"
    legend = f'<span class="key0">baseline</span> <span class="key1">candidate</span> {words}'
    return _svg(_HEIGHT, parts, f"baseline and candidate, {words}") + f'<p class="legend">{legend}</p>'


def _svg(height: int, parts: Sequence[str], label: str) -> str:
    return (
        f'<svg role="img" aria-label="{escape(label, quote=True)}" viewBox="0 0 {_WIDTH} {height}" '
        f'width="{_WIDTH}" height="{height}">{"".join(parts)}</svg>'
    )
