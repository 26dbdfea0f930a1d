"""`agentstream trace`."""

import sys
from collections.abc import Sequence
from pathlib import Path

from agentstream.infra.cli.context import Context
from agentstream.infra.cli.exits import FAILED
from agentstream.infra.cli.locating import check_run_id
from agentstream.infra.cli.screen import Screen, styled
from agentstream.infra.dev_state import running_dev, state_directory
from agentstream.infra.printable import one_line
from agentstream.infra.span_tree import Row, of_run, rows, summary
from agentstream.infra.telemetry.span_lines import SpanLine, read_spans


def run_trace(context: Context, wanted: str, *, directory: Path | None, as_json: bool) -> None:
    """Find the spans and draw them; exit code 1 if there are none."""
    check_run_id(wanted)
    settings = context.settings()
    context.quiet_logs(settings)
    where = directory or settings.trace_dir or _devs_directory()
    found = of_run(read_spans(where), wanted)
    screen = Screen()
    if as_json:
        for span in found:
            screen.json(span.model_dump(mode="json"))
    elif found:
        draw(screen, found)
    if not found:
        screen.note(_nothing(wanted, where), "yellow")
        sys.exit(FAILED)


def draw(screen: Screen, spans: Sequence[SpanLine]) -> None:
    """The tree with its timings; with bars and colours on a terminal."""
    drawn = list(rows(spans))
    widths = [max(len(cell) for cell in column) for column in zip(*(_cells(row) for row in drawn), strict=True)]
    screen.out(summary(spans))
    for row in drawn:
        name, began, took = (
            cell.ljust(width) if number == 0 else cell.rjust(width)
            for number, (cell, width) in enumerate(zip(_cells(row), widths, strict=True))
        )
        bar, notes = f" {row.bar}", one_line(row.notes)
        if screen.for_people:
            if row.failed:
                name, notes = styled(name, "red"), styled(notes, "red")
            bar = f" {styled(row.bar, 'red' if row.failed else 'cyan')}"
        else:
            bar = ""
        screen.out(f"{name}  {began}  {took} {bar}  {notes}".rstrip())


def _cells(row: Row) -> tuple[str, str, str]:
    return row.stem + one_line(row.name), row.began, row.took


def _devs_directory() -> Path:
    dev = running_dev()
    if dev is not None and dev.settings.trace_dir is not None:
        return dev.settings.trace_dir
    return state_directory() / "traces"


def _nothing(wanted: str, where: Path) -> str:
    if not where.is_dir():
        return (
            f"no spans are kept in {where}: `agentstream dev` keeps some; for a worker set AGENTSTREAM_TRACE_DIR,"
            " and name the same directory here with --dir"
        )
    return (
        f"no span of {wanted} in {where}: it has not ended yet, is not sampled, was kept by a worker elsewhere, or is"
        " older than what is kept"
    )
