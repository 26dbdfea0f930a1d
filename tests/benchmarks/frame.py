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
from dataclasses import asdict, dataclass, field
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

    def at(self, percent: float) -> float:
        """The value that so many percent of the measurements do not exceed (nearest rank)."""
        rank = max(0, -(-len(self.values) * percent // 100) - 1)
        return self.values[int(rank)]

    @property
    def row(self) -> tuple[str, ...]:
        """Its line of the table."""
        numbers = [f"{self.at(percent):.1f}" for percent in (50, 90, 99, 100)]
        ratio = "" if self.over_floor is None else f"{self.over_floor:.2f} × {self.floor}"
        return (self.name, self.unit, str(len(self.values)), *numbers, ratio)

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


@dataclass(kw_only=True)
class Page:
    """Everything about one subject."""

    title: str
    distributions: list[Distribution] = field(default_factory=list)
    figures: list[Figure] = field(default_factory=list)

    def distribution(
        self, name: str, unit: str, values: Sequence[float], *, floor: Distribution | None = None
    ) -> Distribution:
        """Note measurements, at least one; `floor` was measured in the same run."""
        ascending = tuple(sorted(values))
        found = Distribution(name=name, unit=unit, values=ascending)
        if floor is not None:
            ratio = found.at(50) / floor.at(50)
            found = Distribution(name=name, unit=unit, values=ascending, floor=floor.name, over_floor=ratio)
        self.distributions.append(found)
        return found

    def figure(self, name: str, unit: str, value: float) -> None:
        """Note a number."""
        self.figures.append(Figure(name=name, unit=unit, value=value))

    def lines(self) -> Iterator[str]:
        """The page as text."""
        yield f"\n== {self.title}"
        if self.distributions:
            yield from _table([_HEAD, *(found.row for found in self.distributions)])
        if self.figures:
            yield from _table([(found.name, _short(found.value), found.unit) for found in self.figures])
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
    print("\n".join(page.lines()))  # noqa: T201
    print(f"\nwritten to {path.relative_to(FOLDER.parents[1])}")  # noqa: T201


def _short(value: float) -> str:
    """A tenth is enough of what is large; ratios and milliseconds need two more digits."""
    return f"{value:,.3f}" if abs(value) < 10 else f"{value:,.1f}"


_HEAD = ("", "", "n", "p50", "p90", "p99", "max", "")


def _table(rows: Sequence[Sequence[str]]) -> Iterator[str]:
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    for row in rows:
        cells = [cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True)]
        yield "  ".join((row[0].ljust(widths[0]), *cells)).rstrip()
