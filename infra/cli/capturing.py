"""`agentstream capture`: from the topics, or from a file of cases, to a recording."""

import asyncio
import gc
import sys
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from agentstream.consumers.replay.recording.capture import Capture, positions_of
from agentstream.consumers.replay.recording.files import RecordingWriter, clear, clear_spool
from agentstream.consumers.replay.recording.importing import BrokenLine, read_cases
from agentstream.consumers.replay.recording.manifest import MANIFEST, Manifest, RecordingError, state_of
from agentstream.consumers.replay.recording.progress import Progress
from agentstream.consumers.replay.recording.redacting import Rules
from agentstream.consumers.replay.recording.selection import Selection
from agentstream.consumers.replay.recording.spool import Spool
from agentstream.consumers.replay.recording.writing import began, begin, write_recording
from agentstream.infra.cli.context import Cluster, Context
from agentstream.infra.cli.exits import USAGE, fail
from agentstream.infra.cli.recordings import tell_manifest
from agentstream.infra.cli.screen import Screen
from agentstream.infra.cli.selecting import Typed
from agentstream.infra.connection import redactor

__all__ = ["Mode", "Typed", "run_capture", "run_import"]
SHOWN_BROKEN = 20
LOG_SECONDS = 10.0
_TO_BEGIN = {
    "recording": "holds a recording already; --force writes over it",
    "unfinished": "holds an unfinished capture; --resume goes on with it, --force begins anew",
    "foreign": "is not empty, and holds no recording",
}
_TO_RESUME = {
    "recording": "the recording is whole, there is nothing to resume",
    "empty": "there is nothing to resume",
    "foreign": "is not empty, and holds no recording",
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Mode:
    """The options that choose nothing."""

    resume: bool
    force: bool
    as_json: bool
    quiet: bool = False


def run_capture(context: Context, directory: Path, typed: Typed, mode: Mode) -> None:
    """Record what is asked for, and say what it is."""
    settings = context.settings()
    context.quiet_logs(settings)
    cluster = context.cluster(settings)
    # What is wrong with the options is said before there is a directory.
    typed.selection(datetime.now(UTC))
    Rules(redactor(settings), typed.patterns or (), typed.paths or ())
    made = _prepare(directory, mode)
    with closing(Spool(directory)) as spool, closing(_Progress()) as progress:
        typed = _as_begun(spool, typed)
        selection = typed.selection(began(spool))
        rules = Rules(redactor(settings), typed.patterns or (), typed.paths or ())
        try:
            manifest = _record(cluster, directory, selection, spool, rules, progress)
        except BaseException as error:
            progress.close()
            _leave(directory, spool, error, made=made)
            raise
    clear_spool(directory)
    _tell(directory, manifest, mode)


def _leave(directory: Path, spool: Spool, error: BaseException, *, made: bool) -> None:
    """Nothing of a capture that cannot succeed, or has read nothing yet; else a word on how to go on."""
    if isinstance(error, RecordingError) or positions_of(spool, "requests") is None:
        _tidy(directory, made=made)
    else:
        Screen().note(f"stopped; what was read is kept: `agentstream capture {directory} --resume` goes on with it")


def _record(
    cluster: Cluster, directory: Path, selection: Selection, spool: Spool, rules: Rules, progress: "_Progress"
) -> Manifest:
    with _few_collections():
        asyncio.run(Capture(cluster.connection, cluster.topics, selection, spool, told=progress).read())
        return write_recording(
            directory,
            spool,
            rules,
            cluster.topics,
            {"origin": "topics", "selection": selection.document()},
            told=progress,
        )


@contextmanager
def _few_collections() -> Iterator[None]:
    """A fetch is some 200,000 objects and no cycle among them: to look for one took 15 % of a capture's CPU time."""
    before = gc.get_threshold()
    gc.set_threshold(1_000_000, *before[1:])
    try:
        yield
    finally:
        gc.set_threshold(*before)


def _prepare(directory: Path, mode: Mode) -> bool:
    """Whether the directory was made. Raises CommandError for one that cannot be used, or not like this."""
    if mode.resume and mode.force:
        fail("--resume goes on, --force begins anew: give one of them", USAGE)
    try:
        state = state_of(directory)
        if mode.force and state in {"recording", "unfinished"}:
            clear(directory)
            state = "empty"
        if state != ("unfinished" if mode.resume else "empty"):
            fail(f"{directory}: {_TO_RESUME[state] if mode.resume else _TO_BEGIN[state]}", USAGE)
        made = not directory.exists()
        directory.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        fail(f"{directory}: cannot be used ({error.strerror})", USAGE)
    return made


def _as_begun(spool: Spool, typed: Typed) -> Typed:
    """The options that the capture was begun with; these, if it begins now."""
    if (noted := spool.noted("typed")) is None:
        begin(spool, typed.document)
        return typed
    begun = Typed.of(noted)
    if typed.document and typed.document != begun.document:
        fail("--resume: the capture was begun with other options; leave them out, or begin anew with --force", USAGE)
    return begun


def _tidy(directory: Path, *, made: bool) -> None:
    """Leave nothing of a capture that cannot succeed."""
    if (directory / MANIFEST).exists():
        return
    clear(directory)
    if made:
        directory.rmdir()


def run_import(context: Context, source: Path, directory: Path, typed: Typed, mode: Mode, *, skip_broken: bool) -> None:
    """Make a recording of somebody's own cases."""
    chosen = [name for name in typed.document if name not in {"patterns", "paths"}]
    if chosen or mode.resume:
        fail("--import takes all cases of the file: options that choose runs, and --resume, do not go with it", USAGE)
    settings = context.settings()
    context.quiet_logs(settings)
    rules = Rules(redactor(settings), typed.patterns or (), typed.paths or ())
    made = _prepare(directory, mode)
    screen, broken = Screen(), 0
    try:
        with RecordingWriter.open(directory) as writer:
            for case in read_cases(source):
                if isinstance(case, BrokenLine):
                    broken += 1
                    if broken <= SHOWN_BROKEN:
                        screen.note(f"{source}:{case.number}: {case.why}", "yellow")
                elif skip_broken or not broken:
                    writer.append(rules.apply(case))
            if broken > SHOWN_BROKEN:
                screen.note(f"and {broken - SHOWN_BROKEN} more", "yellow")
            if broken and not skip_broken:
                raise RecordingError(f"{source}: {broken} broken lines; nothing was imported (--skip-broken: the rest)")
            if not writer.runs:
                raise RecordingError(f"{source}: holds no cases")
            manifest = writer.finish(origin="import", redactions=rules.report())
    except RecordingError:
        _tidy(directory, made=made)
        raise
    _tell(directory, manifest, mode)


def _tell(directory: Path, manifest: Manifest, mode: Mode) -> None:
    screen = Screen()
    if mode.quiet:
        return
    if mode.as_json:
        screen.json(manifest.model_dump(mode="json", exclude_none=True), pretty=True)
        return
    screen.out(f"recorded in {directory}")
    tell_manifest(screen, manifest)


class _Progress:
    """One line that counts up on a terminal; elsewhere a line every ten seconds."""

    def __init__(self) -> None:
        self._terminal = sys.stderr.isatty()
        self._step = ""
        self._began = self._said_at = time.monotonic()
        self._open = False

    def __call__(self, progress: Progress) -> None:
        now = time.monotonic()
        if progress.step != self._step:
            self._step, self._began = progress.step, now
        if self._terminal:
            sys.stderr.write(f"\r\x1b[K{_line(progress, now - self._began)}")
            sys.stderr.flush()
            self._open = True
        elif now - self._said_at >= LOG_SECONDS:
            self._said_at = now
            sys.stderr.write(f"{_line(progress, now - self._began)}\n")

    def close(self) -> None:
        """What comes next begins on a line of its own."""
        if self._open:
            sys.stderr.write("\n")
            self._open = False


def _line(progress: Progress, seconds: float) -> str:
    said = f"{progress.step}: {progress.done:,} of {progress.total:,}, {progress.runs:,} runs"
    if seconds < 1.0 or not progress.since_begin:
        return said
    rate = progress.since_begin / seconds
    left = (progress.total - progress.done) / rate
    return f"{said}, {rate:,.0f}/s, {left:,.0f} s left"
