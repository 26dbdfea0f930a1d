"""How the demo looks: colours and a progress bar on a terminal, plain lines when piped."""

import shutil
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from agentstream.consumers.replay.comparing.summary import EvaluatorSummary
from agentstream.consumers.replay.comparing.terminal import COLUMNS as EVALUATOR_COLUMNS
from agentstream.consumers.replay.comparing.terminal import table_rows
from agentstream.infra.cli.screen import Screen, styled
from agentstream.infra.cli.tracing import draw
from agentstream.infra.rendering import LiveRun, tokens
from agentstream.infra.telemetry.span_lines import SpanLine
from agentstream.schemas.results import InvokeResult

COLUMNS = ("scene", "status", "crashes", "tokens", "trace id", "request", "deltas", "result")
_TABLE_COLUMNS = 128


@dataclass(frozen=True, kw_only=True, slots=True)
class Row:
    """One line of the table at the end."""

    scene: str
    """What it was."""
    status: str
    """How it ended."""
    crashes: str
    """Attempts lost with a worker."""
    usage: str
    """Tokens in and out."""
    trace_id: str
    """The trace."""
    request: str
    """Where its request lies: partition/offset."""
    deltas: str
    """Where its deltas lie: partition/first–last offset."""
    result: str
    """Where its result or dead letter lies: partition/offset."""

    @classmethod
    def of(cls, scene: str, result: InvokeResult, *, request: str, deltas: str, lies: str) -> "Row":
        """The row of a run."""
        return cls(
            scene=scene,
            status=result.status,
            crashes=str(result.crashes),
            usage=tokens(result).replace(" tokens in", "").replace(" out", ""),
            trace_id=result.trace_id or "",
            request=request,
            deltas=deltas,
            result=lies,
        )

    @property
    def cells(self) -> tuple[str, ...]:
        """In the order of COLUMNS."""
        return (
            self.scene, self.status, self.crashes, self.usage, self.trace_id, self.request, self.deltas, self.result,
        )  # fmt: skip


class Show:
    """Writes to stdout."""

    def __init__(self) -> None:
        self._screen = Screen(err=sys.stdout)
        self._started = time.monotonic()

    def note(self, line: str) -> None:
        """What happens behind the scenes."""
        self._screen.note(line)

    def title(self, number: int, text: str) -> None:
        """A scene begins."""
        line = f"{number}. {text}"
        self._screen.out(f"\n{styled(line, 'bold') if self._screen.for_people else line}")

    def asked(self, text: str) -> None:
        """What is asked."""
        self._screen.out(f"{styled('you', 'cyan') if self._screen.for_people else 'you'}: {text}")

    def live(self) -> LiveRun:
        """For the events of one run."""
        self._screen.piece(f"{styled('pi', 'green') if self._screen.for_people else 'pi'}: ")
        return LiveRun(piece=self._screen.piece, line=self._screen.note)

    def failed(self, line: str) -> None:
        """A scene did not go as it should."""
        self._screen.out(styled(f"✗ {line}", "red") if self._screen.for_people else f"FAILED: {line}")

    @contextmanager
    def progress(self, what: str, total: int) -> Iterator[Callable[[], None]]:
        """A bar, or a line at the end; call what it gives for each that is done."""
        if not self._screen.for_people:
            done = 0

            def count() -> None:
                nonlocal done
                done += 1
                self._screen.out(f"{what}: {done} of {total}")

            yield count
            return
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

        with Progress(TextColumn(what), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn()) as bar:
            task = bar.add_task(what, total=total)
            yield lambda: bar.advance(task)

    def table(self, rows: Sequence[Row], legend: str) -> None:
        """What came of it all."""
        self._screen.out("")
        if self._screen.for_people and shutil.get_terminal_size().columns >= _TABLE_COLUMNS:
            self._rich_table(rows)
        elif self._screen.for_people:
            for row in rows:
                self._screen.out(
                    f"{styled(row.scene, 'bold')}: {row.status}, crashes {row.crashes}, tokens {row.usage}"
                )
                self._screen.note(f"  trace {row.trace_id}")
                self._screen.note(f"  request {row.request} · deltas {row.deltas} · result {row.result}")
        else:
            self._padded((COLUMNS, *(row.cells for row in rows)))
        self._screen.out(legend)

    def comparison(self, summaries: Sequence[EvaluatorSummary], lines: Iterable[str]) -> None:
        """What got better and worse, and the verdict, as `agentstream compare` shows them."""
        if self._screen.for_people:
            self._screen.table(EVALUATOR_COLUMNS, table_rows(summaries))
        else:
            self._padded((EVALUATOR_COLUMNS, *table_rows(summaries)))
        for line in lines:
            self._screen.out(line)

    def alarm(self, line: str) -> None:
        """A rule begins to fail."""
        self._screen.out(styled(f"ALARM: {line}", "red") if self._screen.for_people else f"ALARM: {line}")

    def tree(self, title: str, spans: Sequence[SpanLine]) -> None:
        """A run's spans."""
        self._screen.out(f"\n{title}")
        draw(self._screen, spans)

    def _padded(self, lines: Sequence[Sequence[str]]) -> None:
        widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
        for cells in lines:
            padded = (cell.ljust(width) for cell, width in zip(cells, widths, strict=True))
            self._screen.out("  ".join(padded).rstrip())

    def _rich_table(self, rows: Sequence[Row]) -> None:
        from rich.box import SIMPLE_HEAD
        from rich.console import Console
        from rich.table import Table

        table = Table(box=SIMPLE_HEAD, pad_edge=False)
        for name in COLUMNS:
            table.add_column(name, no_wrap=True)
        for row in rows:
            table.add_row(*row.cells)
        Console().print(table)

    def end(self, line: str) -> None:
        """The last line, with the time it took."""
        self._screen.out(f"{line} ({time.monotonic() - self._started:.0f} s)")
