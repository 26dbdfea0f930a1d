"""What every benchmark prints and writes: figures, distributions with percentiles, and ratios to a floor.

    with report("cancel latency") as page:
        floor = page.distribution("two bare hops", "ms", values)
        page.distribution("a run under way", "ms", values, floor=floor)
        page.figure("per remembered run", "bytes", 150)

A machine's absolute numbers say little about another's, or about its next hour. So each benchmark measures its floor in
the same run, and what to compare over time is the ratio. JSON lies under `.cache/benchmarks/`, one file for each title.
"""

import json
import os
import platform
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path

FOLDER = Path(__file__).parents[2] / ".cache" / "benchmarks"
BARS = 10
WIDTH = 40


@dataclass(frozen=True, kw_only=True, slots=True)
class Distribution:
    """Measurements of one thing."""

    name: str
    """What was measured."""
    unit: str
    """In what."""
    values: tuple[float, ...]
    """All of them, ascending."""
    floor: str | None = None
    """The distribution that this one cannot be below."""
    over_floor: float | None = None
    """The median as a multiple of the floor's."""
    wanted: str | None = None
    """What the multiple is to be, such as `≤ 1.5`; None: it is only reported."""

    def at(self, percent: float) -> float:
        """The value that so many percent of the measurements do not exceed (nearest rank)."""
        rank = max(0, -(-len(self.values) * percent // 100) - 1)
        return self.values[int(rank)]

    @property
    def row(self) -> tuple[str, ...]:
        """Its line of the table."""
        numbers = [f"{self.at(percent):.1f}" for percent in (50, 90, 99, 100)]
        ratio = "" if self.over_floor is None else f"{self.over_floor:.2f} × {self.floor}"
        return (self.name, self.unit, str(len(self.values)), *numbers, ratio, _target(self.wanted))

    def histogram(self) -> Iterator[str]:
        """Bars over ten equal steps from the least to the 99th percentile; the last one holds all above as well."""
        low, high = self.values[0], self.at(99)
        step = (high - low) / BARS or 1.0
        counts = [0] * BARS
        for value in self.values:
            counts[min(int((value - low) / step), BARS - 1)] += 1
        for number, count in enumerate(counts):
            bar = "█" * round(WIDTH * count / max(counts))
            yield f"  {low + number * step:>9.1f} {self.unit} |{bar} {count or ''}".rstrip()


@dataclass(frozen=True, kw_only=True, slots=True)
class Figure:
    """One number."""

    name: str
    """What it is."""
    unit: str
    """In what."""
    value: float
    """The number."""
    wanted: str | None = None
    """What it is to be, such as `≥ 0.25`; None: it is only reported."""


@dataclass(kw_only=True)
class Page:
    """Everything about one subject."""

    title: str
    distributions: list[Distribution] = field(default_factory=list)
    figures: list[Figure] = field(default_factory=list)

    def distribution(
        self,
        name: str,
        unit: str,
        values: Sequence[float],
        *,
        floor: Distribution | None = None,
        wanted: str | None = None,
    ) -> Distribution:
        """Note measurements, at least one; `floor` was measured in the same run, `wanted` is of the ratio to it."""
        found = Distribution(name=name, unit=unit, values=tuple(sorted(values)), wanted=wanted)
        if floor is not None:
            found = replace(found, floor=floor.name, over_floor=found.at(50) / floor.at(50))
        self.distributions.append(found)
        return found

    def figure(self, name: str, unit: str, value: float, *, wanted: str | None = None) -> None:
        """Note a number."""
        self.figures.append(Figure(name=name, unit=unit, value=value, wanted=wanted))

    def verdicts(self) -> Iterator[tuple[str, ...]]:
        """A line for each target: whose it is, what came of it, what is wanted, whether it is kept."""
        for found in self.distributions:
            if found.wanted is not None and found.over_floor is not None:
                yield _verdict(self.title, f"{found.name}, p50", "×", found.over_floor, found.wanted)
        for figure in self.figures:
            if figure.wanted is not None:
                yield _verdict(self.title, figure.name, figure.unit, figure.value, figure.wanted)

    def lines(self) -> Iterator[str]:
        """The page as text."""
        yield f"\n== {self.title}"
        if self.distributions:
            yield from _table([_HEAD, *(found.row for found in self.distributions)])
        if self.figures:
            rows = [(found.name, _short(found.value), found.unit, _target(found.wanted)) for found in self.figures]
            yield from _table(rows)
        for found in self.distributions:
            yield f"\n{found.name}"
            yield from found.histogram()

    def write(self) -> Path:
        """Write it as JSON."""
        FOLDER.mkdir(parents=True, exist_ok=True)
        path = FOLDER / f"{self.title.replace(' ', '-')}.json"
        percentiles = {
            found.name: {f"p{percent}": found.at(percent) for percent in (50, 90, 99)} for found in self.distributions
        }
        machine = {"cpus": os.cpu_count(), "python": platform.python_version(), "system": platform.system()}
        at = datetime.now(UTC).isoformat(timespec="seconds")
        body = {"at": at, "machine": machine, **asdict(self), "percentiles": percentiles}
        path.write_text(json.dumps(body, indent=1) + "\n")
        return path


@contextmanager
def report(title: str) -> Iterator[Page]:
    """A page that is printed and written once it is complete."""
    page = Page(title=title)
    yield page
    path = page.write()
    VERDICTS.extend(page.verdicts())
    print("\n".join(page.lines()))  # noqa: T201
    print(f"\nwritten to {path.relative_to(FOLDER.parents[1])}")  # noqa: T201


def _short(value: float) -> str:
    """A tenth is enough of what is large; ratios and milliseconds need two more digits."""
    return f"{value:,.3f}" if abs(value) < 10 else f"{value:,.1f}"


VERDICTS: list[tuple[str, ...]] = []
"""Of all pages of this process, for the summary at its end."""
_HEAD = ("", "", "n", "p50", "p90", "p99", "max", "", "")


def summary() -> Iterator[str]:
    """All targets that were measured, as a table."""
    if VERDICTS:
        yield from _table([("target", "measured", "wanted", ""), *VERDICTS])


def _target(wanted: str | None) -> str:
    return "" if wanted is None else f"wanted {wanted}"


def _verdict(title: str, name: str, unit: str, value: float, wanted: str) -> tuple[str, ...]:
    sign, _, bound = wanted.partition(" ")
    kept = value >= float(bound) if sign == "≥" else value <= float(bound)
    return (f"{title}: {name}", f"{_short(value)} {unit}", wanted, "kept" if kept else "MISSED")


def _table(rows: Sequence[Sequence[str]]) -> Iterator[str]:
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    for row in rows:
        cells = [cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True)]
        yield "  ".join((row[0].ljust(widths[0]), *cells)).rstrip()
