"""`agentstream invoke --file`: each line of a file is a request, each request is one line of results.

Lines are asked in their order, so many at once; a line waits for the one above it of the same session. Ctrl-C asks no
more and leaves what is under way as it is, unless it is to be cancelled: started again, the results are collected.
"""

import asyncio
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, ExitStack, asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from agentstream.consumers.client import (
    AgentClient,
    BrokerUnavailable,
    ClientError,
    RightMissing,
    RunTimeout,
    TopicsMissing,
    Voided,
)
from agentstream.infra.cli.answering import CANCEL_SECONDS
from agentstream.infra.cli.asking import Asked, request_options
from agentstream.infra.cli.batch_lines import Broken, Line, Lines
from agentstream.infra.cli.batch_output import FileOutput, Output, ScreenOutput
from agentstream.infra.cli.batch_progress import LOG_SECONDS, Tally
from agentstream.infra.cli.calling import Where, calling, where_to
from agentstream.infra.cli.cancelling import whoever
from agentstream.infra.cli.context import Context
from agentstream.infra.cli.exits import FAILED, OK, USAGE, fail
from agentstream.infra.cli.line_source import count_lines, lines_of
from agentstream.infra.cli.screen import Screen
from agentstream.infra.cli.silence import NOT_TAKEN, Silence, watching

_NAMED_LINES = 12
_NAMED_RUNS = 5


@dataclass(frozen=True, kw_only=True, slots=True)
class Batch:
    """What stands on the command line."""

    source: str
    """A file; `-` for stdin."""
    output: Path | None
    """Where results go; None: stdout."""
    concurrency: int
    """Runs at once."""
    timeout: float
    """Seconds to wait for each result."""
    round_name: str
    """Part of every run id that is made up."""
    cancel_on_interrupt: bool
    """Whether Ctrl-C cancels what is under way."""


def run_batch(context: Context, asked: Asked, batch: Batch) -> None:
    """Ask every line; exit code 1 if a line is broken or a run did not complete."""
    lines = Lines(request_options(asked), round_name=batch.round_name)
    total = None if batch.source == "-" else _counted(Path(batch.source))
    where = where_to(context)
    screen = Screen()
    with ExitStack() as stack:
        output: Output = ScreenOutput(screen)
        if batch.output is not None:
            output = stack.enter_context(FileOutput(batch.output))
        code = asyncio.run(_play(where, batch, lines, output, screen, total))
    if code != OK:
        sys.exit(code)


def _counted(path: Path) -> int | None:
    try:
        return count_lines(path)
    except OSError as error:
        return fail(f"--file {path}: {error.strerror}", USAGE)


async def _play(where: Where, batch: Batch, lines: Lines, output: Output, screen: Screen, total: int | None) -> int:
    now = asyncio.get_running_loop().time
    tally = Tally(total=total, began=now(), began_at=datetime.now(UTC))
    silence = Silence(now(), alive_is_sent=False)

    async with AsyncExitStack() as stack:
        client = await stack.enter_async_context(calling(where))
        asking = _Asking(client, batch, output, tally, screen, lambda: silence.heard(Voided(), now()))
        await stack.enter_async_context(watching(silence, where.cluster.connection, asking.warn))
        async with _shown(tally, asking, screen):
            try:
                await asking.all(lines, lines_of(None if batch.source == "-" else Path(batch.source)))
            except asyncio.CancelledError:
                await asking.interrupted()
                raise
    screen.note(tally.summary(now()), "dim" if tally.flawless else "yellow")
    if tally.older:
        screen.note(
            f"{tally.older:,} of them had run before: --round NAME asks anew what has no run_id of its own", "yellow"
        )
    return OK if tally.flawless else FAILED


@asynccontextmanager
async def _shown(tally: Tally, asking: "_Asking", screen: Screen) -> AsyncIterator[None]:
    """Inside it the progress is shown."""
    now = asyncio.get_running_loop().time

    async def show() -> None:
        while True:
            await asyncio.sleep(0.5 if screen.notes_for_people else LOG_SECONDS)
            screen.status(tally.line(now(), len(asking.under_way)))

    task = asyncio.create_task(show(), name="progress")
    try:
        yield
    finally:
        task.cancel()
        await asyncio.wait({task})
        screen.status("")


def _is_done(task: "asyncio.Task[None]") -> bool:
    """Whether it did what it was to do."""
    return task.done() and not task.cancelled() and task.exception() is None


class _Asking:
    """The requests of one file."""

    def __init__(
        self,
        client: AgentClient,
        batch: Batch,
        output: Output,
        tally: Tally,
        screen: Screen,
        heard: Callable[[], None],
    ) -> None:
        self._client = client
        self._batch = batch
        self._output = output
        self._tally = tally
        self._screen = screen
        self._heard = heard
        self._slots = asyncio.Semaphore(batch.concurrency)
        self._last_of: dict[str, asyncio.Task[None]] = {}
        self.under_way: dict[str, Line] = {}
        self.cancelling = False

    async def all(self, lines: Lines, source: AsyncIterator[bytes]) -> None:
        """Ask every line. Raises what no further line would escape, such as BrokerUnavailable."""
        async with asyncio.TaskGroup() as group:
            async for raw in source:
                match lines.read(raw):
                    case Broken() as broken:
                        self._tally.broken += 1
                        self._screen.note(f"line {broken.number}: {broken.why}", "red")
                    case Line() as line if line.run_id in self._output.finished:
                        self._tally.stood_there(self._output.finished[line.run_id])
                    case Line() as line:
                        await self._slots.acquire()
                        before = self._last_of.get(line.session_id)
                        self._last_of[line.session_id] = group.create_task(self._one(line, before), name=line.run_id)
                    case None:
                        pass

    def warn(self, line: str) -> None:
        """Say what is missing."""
        if self.cancelling:
            return  # it was interrupted, and waits for nothing: "Ctrl-C stops" came after Ctrl-C
        self._screen.note(
            "no result yet; is a worker running? `agentstream doctor` tells" if line == NOT_TAKEN else line
        )

    async def interrupted(self) -> None:
        """Say what is under way, and cancel it if that is wanted."""
        lines = sorted(self.under_way.values(), key=lambda line: line.number)
        count = len(lines)
        which = ", ".join(str(line.number) for line in lines[:_NAMED_LINES]) + (", …" if count > _NAMED_LINES else "")
        told = f"interrupted; {count} {'run is' if count == 1 else 'runs are'} under way (lines {which})"
        if not lines:
            self._screen.note("interrupted; nothing is under way", "yellow")
        elif not self._batch.cancel_on_interrupt:
            self._screen.note(f"{told}, and go on: the same command collects what is missing", "yellow")
        else:
            self._screen.note(f"{told}; cancelling", "yellow")
            self.cancelling = True
            await self._cancel([line.run_id for line in lines])

    async def _cancel(self, run_ids: list[str]) -> None:
        by = whoever()
        tasks = [
            asyncio.create_task(
                self._client.cancel(run_id, "interrupted at its terminal", requested_by=by), name=run_id
            )
            for run_id in run_ids
        ]
        await asyncio.wait(tasks, timeout=CANCEL_SECONDS)
        # Each by itself: in a task group the first that failed took along those that would have been cancelled.
        left = [task.get_name() for task in tasks if not _is_done(task)]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        if not left:
            self._screen.note("cancelled; their one result is that, also when they are asked again", "yellow")
            return
        named = ", ".join(left[:_NAMED_RUNS])
        more = f" and {len(left) - _NAMED_RUNS:,} more" if len(left) > _NAMED_RUNS else ""
        how = "`agentstream cancel RUN_ID` cancels one, the same command collects what they give"
        self._screen.note(f"could not be cancelled and may go on: {named}{more}; {how}", "red")

    async def _one(self, line: Line, before: "asyncio.Task[None] | None") -> None:
        try:
            if before is not None:
                await asyncio.wait({before})
            self.under_way[line.run_id] = line
            result = await self._client.invoke(line.request, timeout=self._batch.timeout)
        except (BrokerUnavailable, TopicsMissing, RightMissing):
            raise
        except ClientError as error:
            self._tally.lost += 1
            goes_on = "; it goes on" if isinstance(error, RunTimeout) else ""
            self._screen.note(f"line {line.number}: {error}{goes_on}", "red")
        else:
            self._heard()
            self._output.write(line.number, result)
            self._tally.took(result)
        self.under_way.pop(line.run_id, None)
        self._slots.release()
        if self._last_of.get(line.session_id) is asyncio.current_task():
            del self._last_of[line.session_id]
