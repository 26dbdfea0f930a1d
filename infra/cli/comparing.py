"""`agentstream compare`."""

import asyncio
import shutil
import sys
from contextlib import redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from agentstream.consumers.replay.comparing.answers import ComparisonError
from agentstream.consumers.replay.comparing.comparison import Sources
from agentstream.consumers.replay.comparing.report import Report, make_report
from agentstream.consumers.replay.comparing.sides import Answers, Recorded, ReplayAnswers
from agentstream.consumers.replay.comparing.specs import EvaluatorFile, read_evaluator_file
from agentstream.consumers.replay.comparing.terminal import COLUMNS, table_rows
from agentstream.consumers.replay.playing.directory import BASELINE, RECORDING, read_manifest
from agentstream.consumers.replay.recording.files import RecordingReader
from agentstream.consumers.replay.words import counted
from agentstream.infra.cli.context import Context
from agentstream.infra.cli.exits import USAGE, ReaderGone, close_stdout, fail, no_verdict_if_unwritable
from agentstream.infra.cli.screen import Screen

NOT_JUDGED = 2
_STYLES = {"passed": "green", "failed": "red", "not_judged": "yellow"}


@dataclass(frozen=True, kw_only=True, slots=True)
class Outputs:
    """Where the comparison goes."""

    directory: Path | None = None
    """Where all files go."""
    jsonl: Path | None = None
    """Where the evidence goes."""
    html: Path | None = None
    """Where the page goes."""
    junit: Path | None = None
    """Where the XML goes."""
    publish: bool = False
    """Whether outcomes go to the topic of evaluations."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Wanted:
    """What stands on the command line."""

    recording: Path
    """The recording."""
    replay: Path
    """The replay to judge."""
    baseline: str
    """`recording`, or the directory of another replay."""
    baseline_repeats: int | None
    """How many plays of the baseline to take."""
    specs: tuple[str, ...]
    """Evaluators of the command line."""
    evaluator_file: Path | None
    """A file with more, and with rules."""
    rules: tuple[str, ...]
    """Rules of the command line."""
    max_left_out: float
    """Of the cases, how many a rule may lack."""
    judge_model: str | None
    """The model that judges."""
    seed: int
    """Of every resampling."""
    outputs: Outputs
    """Where it goes."""


def run_compare(context: Context, wanted: Wanted, *, as_json: bool) -> None:
    """Compare, write, print; the exit code is the verdict's."""
    _check_places(wanted.outputs)
    with TemporaryDirectory(prefix="agentstream-compare-") as scratch:
        screen = Screen()
        with no_verdict_if_unwritable():
            # What an evaluator of one's own prints is no line of the table, and would break the JSON.
            with redirect_stdout(sys.stderr):
                report = asyncio.run(_compare(wanted, wanted.outputs.directory or Path(scratch)))
            _write(report, wanted.outputs)
            _print(report, screen, as_json=as_json)
        if wanted.outputs.publish:
            sent = asyncio.run(_publish(context, report))
            screen.note(f"{counted(sent, 'evaluation')} published")
    if wanted.baseline == "recording" and wanted.baseline_repeats is None and (wanted.replay / BASELINE).exists():
        screen.note(f"{wanted.replay / BASELINE} has plays of the baseline: --baseline-repeats 2 compares with those")
    code = report.verdict.exit_code
    for one in report.summaries:
        if one.failures and not one.cases:
            screen.note(f"{one.evaluator.name} failed on every answer: it judged nothing", "yellow")
            code = code or NOT_JUDGED
    if not any(one.cases for one in report.summaries):
        screen.note("no case has an answer that could be judged: nothing was compared", "yellow")
        code = code or NOT_JUDGED
    if code:
        sys.exit(code)


async def _compare(wanted: Wanted, directory: Path) -> Report:
    recording = RecordingReader.open(wanted.recording)
    given = read_evaluator_file(wanted.evaluator_file) if wanted.evaluator_file else EvaluatorFile(specs=())
    sources = Sources(
        recording=_name_of(wanted.recording),
        baseline=_baseline(wanted, recording),
        candidate=_replay(wanted.replay, recording),
        seed=wanted.seed,
        baseline_repeats=wanted.baseline_repeats,
    )
    return await make_report(
        sources,
        recording,
        evaluators=(*given.specs, *wanted.specs),
        fail_if=(*given.fail_if, *wanted.rules),
        out=directory,
        max_left_out=wanted.max_left_out,
        judge_model=wanted.judge_model,
    )


def _name_of(recording: Path) -> str:
    """What people call it: those that `replay` and `shadow` make are all called `recording`, so their place is said."""
    own = recording.name == RECORDING and recording.parent.name
    return f"{recording.parent.name}/{RECORDING}" if own else recording.name


def _baseline(wanted: Wanted, recording: RecordingReader) -> Answers:
    """The recorded answers or another replay; with `--baseline-repeats` so many plays of it. Raises ComparisonError."""
    repeats = wanted.baseline_repeats
    if repeats is None:
        return Recorded() if wanted.baseline == "recording" else _replay(Path(wanted.baseline), recording)
    directory = wanted.replay / BASELINE if wanted.baseline == "recording" else Path(wanted.baseline)
    if wanted.baseline == "recording" and not directory.exists():
        raise ComparisonError(
            f"--baseline-repeats: {wanted.replay} holds no plays of its baseline; give `replay` the same "
            f"--baseline-repeats {repeats} and the options it had, or name a replay with repeats by --baseline"
        )
    answers, terms = _replay(directory, recording, repeats), read_manifest(directory).terms
    if terms.mode == "frozen":
        raise ComparisonError(
            f"--baseline-repeats: {directory} is frozen: its plays are the recorded answers each time"
        )
    if terms.repeats < repeats:
        raise ComparisonError(
            f"--baseline-repeats {repeats}: in {directory} each run was played {counted(terms.repeats, 'time')}"
        )
    return answers


def _replay(directory: Path, recording: RecordingReader, repeats: int | None = None) -> Answers:
    manifest = read_manifest(directory)
    if manifest.recording_hash != recording.manifest.content_hash:
        raise ComparisonError(f"{directory}: is a replay of another recording, {manifest.recording}")
    return ReplayAnswers.open(directory, repeats=repeats)


def _check_places(outputs: Outputs) -> None:
    """Raise CommandError for a place that cannot be written to: before hours of judging, not after."""
    if outputs.directory is not None and outputs.directory.exists() and not outputs.directory.is_dir():
        fail(f"--out {outputs.directory}: is no directory", USAGE)
    for name, file in (("--jsonl", outputs.jsonl), ("--html", outputs.html), ("--junit", outputs.junit)):
        if file is not None and file.is_dir():
            fail(f"{name} {file}: is a directory", USAGE)


def _write(report: Report, outputs: Outputs) -> None:
    if outputs.jsonl is not None:
        outputs.jsonl.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(report.evidence, outputs.jsonl)
    if outputs.html is not None:
        report.write_html(outputs.html)
    if outputs.junit is not None:
        report.write_junit(outputs.junit)
    if outputs.directory is not None:
        report.write_files()


def _print(report: Report, screen: Screen, *, as_json: bool) -> None:
    try:
        if as_json:
            screen.json(report.document(), pretty=True)
        else:
            _show(report, screen)
        sys.stdout.flush()
    except (ReaderGone, BrokenPipeError):
        # `compare … | head`: nobody reads on, but a change that failed must not pass for that.
        close_stdout()


def _show(report: Report, screen: Screen) -> None:
    about = report.comparison.about
    times = f" played {about.baseline_repeats} times" if about.baseline_repeats else ""
    which = "the recording" if about.recording == RECORDING else f"the recording {about.recording}"
    against = which if about.baseline == "recording" else f"{about.baseline}{times}, of {which}"
    screen.note(f"{about.candidate} against {against}; * is clear of 0 at 95%")
    if not screen.for_people:
        screen.out("\t".join(COLUMNS))
    screen.table(COLUMNS, table_rows(report.summaries))
    for line in report.lines():
        screen.out(line)


async def _publish(context: Context, report: Report) -> int:
    """To the topic, and as spans where OpenTelemetry's variables name a place for them."""
    from agentstream.infra.cli.evaluations import evaluations_published

    settings = context.settings()
    context.quiet_logs(settings)
    recording = report.comparison.about.recording
    async with evaluations_published(
        context.cluster(settings), service="agentstream-compare", recording=recording
    ) as publish:
        return await publish(report.results)
