"""`agentstream replay`."""

import asyncio
import secrets
import sys
from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

from pydantic import ValidationError

from agentstream.consumers.replay.playing import Budget, Player, ReplayDirectory, ReplayManifest, ReplayTerms, Tally
from agentstream.consumers.replay.playing.directory import BASELINE
from agentstream.consumers.replay.recording.files import RecordingReader
from agentstream.infra.cli.asking import Asked, request_options
from agentstream.infra.cli.context import Context
from agentstream.infra.cli.exits import USAGE, fail
from agentstream.infra.cli.replay_checks import (
    Note,
    check_changes,
    check_harnesses,
    check_models,
    check_tapes,
    check_tools,
    needs_of,
)
from agentstream.infra.cli.replay_lines import Progress, show_replay
from agentstream.infra.cli.replay_selection import is_selection, recording_of
from agentstream.infra.cli.screen import Screen
from agentstream.infra.models import usable_model
from agentstream.infra.replaying import in_process, replay_prefix, through_kafka
from agentstream.infra.settings import Settings
from agentstream.schemas.requests import AgentParameters

INCOMPLETE = 2
"""Not every run was played: what follows from the replay could not be judged."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Wanted:
    """What stands on the command line."""

    recording: str
    """The recording's directory, or a selection."""
    out: Path
    """Where the replay goes."""
    asked: Asked
    """Changes, as `invoke` takes them."""
    terms: dict[str, object]
    """All of the terms but the changes."""
    budget: Budget
    """How fast, and how much."""
    baseline_repeats: int | None
    """How often to play each run without the changes as well."""
    kafka: bool
    """Whether to go through Kafka."""
    own_worker: bool
    """Whether a worker is started for that."""
    partitions: int
    """Of topics that are made for that."""
    restart: bool
    """Whether to begin anew."""


def run_replay(context: Context, wanted: Wanted, *, as_json: bool) -> None:
    """Play what is not played yet, say how it goes on stderr and what it came to on stdout."""
    screen = Screen()
    terms = terms_of(wanted.asked, wanted.terms)
    baseline = _baseline_terms(terms, wanted)
    place = recording_of(context, wanted.recording, wanted.out, restart=wanted.restart)
    recording = RecordingReader.open(place)
    settings = context.at_dev(context.settings()) if wanted.kafka else context.settings()
    context.quiet_logs(settings)
    plans = [(wanted.out, terms)] + ([] if baseline is None else [(wanted.out / BASELINE, baseline)])
    try:
        complete = asyncio.run(_play_all(settings, wanted, recording, plans, screen, as_json=as_json))
    except KeyboardInterrupt:
        screen.note("interrupted; the same command goes on with what was not finished")
        raise
    if not complete:
        sys.exit(INCOMPLETE)


def _fresh(wanted: Wanted, recording: RecordingReader, terms: ReplayTerms) -> ReplayManifest:
    return ReplayManifest(
        id=secrets.token_hex(5),
        created_at=datetime.now(UTC),
        recording=wanted.recording if is_selection(wanted.recording) else recording.directory.resolve().name,
        recording_hash=recording.manifest.content_hash,
        runs=len(recording),
        terms=terms,
    )


def _baseline_terms(terms: ReplayTerms, wanted: Wanted) -> ReplayTerms | None:
    """The same without the changes, as often as `--baseline-repeats` says. Raises CommandError."""
    if wanted.baseline_repeats is None:
        return None
    if terms.mode == "frozen":
        fail("--baseline-repeats: frozen answers are the recorded ones each time, they have no noise", USAGE)
    if not wanted.own_worker:
        fail(
            "--baseline-repeats: workers of others can be pointed at one replay only; use it without --no-worker", USAGE
        )
    return terms.model_copy(update={"changes": AgentParameters(), "repeats": wanted.baseline_repeats})


async def _play_all(
    settings: Settings,
    wanted: Wanted,
    recording: RecordingReader,
    plans: Sequence[tuple[Path, ReplayTerms]],
    screen: Screen,
    *,
    as_json: bool,
) -> bool:
    """One after the other, all of them within the one budget, until one is not complete. Whether all are."""
    budget, tallies = wanted.budget, list[Tally]()
    async with AsyncExitStack() as stack:
        if plans[0][1].mode != "frozen":
            settings = (await stack.enter_async_context(usable_model(settings))).settings
        # What is refused must leave nothing behind: the mended command would be told of other terms.
        tools = [_checked(settings, wanted, recording, terms, screen.note) for _, terms in plans]
        directories = [
            stack.enter_context(ReplayDirectory.open(place, _fresh(wanted, recording, terms), restart=wanted.restart))
            for place, terms in plans
        ]
        for directory in directories:
            _refuse_itself(recording, directory)
        for directory, needed in zip(directories, tools, strict=True):
            if tallies:
                screen.note(f"the baseline: each run {directory.manifest.terms.repeats} times without the changes")
            progress = Progress(screen, directory)
            tallies.append(
                await _play(
                    settings, replace(wanted, budget=budget), recording, directories[len(tallies) :], needed, progress
                )
            )
            if not tallies[-1].complete:
                break
            budget = budget.left_by(tallies[-1])
        show_replay(list(zip(directories, tallies, strict=False)), screen, as_json=as_json)
    return len(tallies) == len(plans) and tallies[-1].complete


def _checked(
    settings: Settings, wanted: Wanted, recording: RecordingReader, terms: ReplayTerms, note: Note
) -> frozenset[str]:
    """The tools that the runs ask for. Raises CommandError for what can be known not to work, or must not run."""
    needs = needs_of(recording, terms, settings)
    if wanted.own_worker:
        check_harnesses(needs, settings, runs=len(recording), note=note)
    check_tools(needs, terms, settings, runs=len(recording), own_worker=wanted.own_worker, note=note)
    check_tapes(needs, len(recording), terms, note)
    if terms.mode != "frozen" and wanted.own_worker:
        check_models(needs, settings, wanted.budget, runs=len(recording), note=note)
    return frozenset(needs.tools)


async def _play(
    settings: Settings,
    wanted: Wanted,
    recording: RecordingReader,
    to_play: Sequence[ReplayDirectory],
    tools: frozenset[str],
    progress: "Progress",
) -> Tally:
    """Play the first of these."""
    directory = to_play[0]
    terms = directory.manifest.terms
    async with AsyncExitStack() as stack:
        if wanted.kafka:
            opened = through_kafka(
                settings,
                terms,
                replay=directory.manifest.id,
                tools=tools,
                partitions=wanted.partitions,
                own_worker=wanted.own_worker,
                progress=progress.note,
            )
        else:
            opened = in_process(settings, terms, tools=tools, progress=progress.note)
        try:
            stage = await stack.enter_async_context(opened)
        except BaseException:
            # The broker is away, say: an empty replay would be told of as one that is there.
            for one in reversed(to_play):  # a baseline lies in the candidate's
                one.withdraw()
            raise
        if wanted.kafka and not wanted.own_worker:
            prefix = replay_prefix(directory.manifest.id)
            progress.note(
                "point workers at it: "
                f"AGENTSTREAM_TOPIC_PREFIX={prefix} AGENTSTREAM_GROUP_ID={prefix.removesuffix('.')}"
            )
        player = Player(directory, stage.performer, stage.playbacks, budget=wanted.budget, progress=progress.ran)
        return await player.play(recording)


def terms_of(asked: Asked, rest: Mapping[str, object]) -> ReplayTerms:
    """The terms that stand on a command line: changes, and the rest. Raises CommandError."""
    options = request_options(asked)
    if "metadata" in options:
        fail("--set metadata.…: a replay keeps the metadata of its recording", USAGE)
    try:
        changes = AgentParameters.model_validate(options.get("parameters", {}))
        terms = ReplayTerms.model_validate({**rest, "changes": changes})
    except ValidationError as error:
        first = error.errors(include_input=False, include_url=False)[0]
        where = ".".join(map(str, first["loc"]))
        return fail(f"{where}: {first['msg']}" if where else first["msg"].removeprefix("Value error, "), USAGE)
    check_changes(terms)
    return terms


def _refuse_itself(recording: RecordingReader, directory: ReplayDirectory) -> None:
    prefix = replay_prefix(directory.manifest.id)
    if recording.manifest.topic_prefix == prefix:
        fail(f"this recording was made of the topics that this replay writes to ({prefix}); use another --out", USAGE)
