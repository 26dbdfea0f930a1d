"""`agentstream replay`."""

import asyncio
import secrets
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from pydantic import JsonValue, ValidationError

from agentstream.consumers.replay.playing import Budget, Player, ReplayDirectory, ReplayManifest, ReplayTerms, Tally
from agentstream.consumers.replay.playing.preparing import replayed_parameters
from agentstream.consumers.replay.recording.files import RecordingReader
from agentstream.infra.cli.context import Context
from agentstream.infra.cli.exits import USAGE, fail
from agentstream.infra.cli.invoking import Asked, request_options
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

    recording: Path
    """The recording."""
    out: Path
    """Where the replay goes."""
    asked: Asked
    """Changes, as `invoke` takes them."""
    terms: dict[str, object]
    """All of the terms but the changes."""
    budget: Budget
    """How fast, and how much."""
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
    recording = RecordingReader.open(wanted.recording)
    settings = context.at_dev(context.settings()) if wanted.kafka else context.settings()
    context.quiet_logs(settings)
    fresh = ReplayManifest(
        id=secrets.token_hex(5),
        created_at=datetime.now(UTC),
        recording=wanted.recording.resolve().name,
        recording_hash=recording.manifest.content_hash,
        runs=len(recording),
        terms=terms,
    )
    with ReplayDirectory.open(wanted.out, fresh, restart=wanted.restart) as directory:
        _refuse_itself(recording, directory)
        tally = asyncio.run(_play(settings, wanted, recording, directory, Progress(screen, directory)))
    _show(tally, directory, screen, as_json=as_json)
    if not tally.complete:
        sys.exit(INCOMPLETE)


async def _play(
    settings: Settings, wanted: Wanted, recording: RecordingReader, directory: ReplayDirectory, progress: "Progress"
) -> Tally:
    terms = directory.manifest.terms
    tools = frozenset[str]()
    if terms.mode != "live":
        tools = frozenset(tool for run in recording for tool in replayed_parameters(run, terms).tools or ())
    async with AsyncExitStack() as stack:
        if terms.mode != "frozen":
            settings = (await stack.enter_async_context(usable_model(settings))).settings
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
            if not wanted.own_worker:
                prefix = replay_prefix(directory.manifest.id)
                progress.note(
                    "point workers at it: "
                    f"AGENTSTREAM_TOPIC_PREFIX={prefix} AGENTSTREAM_GROUP_ID={prefix.removesuffix('.')}"
                )
        else:
            opened = in_process(settings, terms, tools=tools, progress=progress.note)
        stage = await stack.enter_async_context(opened)
        player = Player(directory, stage.performer, stage.playbacks, budget=wanted.budget, progress=progress.ran)
        return await player.play(recording)


def terms_of(asked: Asked, rest: Mapping[str, object]) -> ReplayTerms:
    """The terms that stand on a command line: changes, and the rest. Raises CommandError."""
    options = request_options(asked)
    if "metadata" in options:
        fail("--set metadata.…: a replay keeps the metadata of its recording", USAGE)
    try:
        changes = AgentParameters.model_validate(options.get("parameters", {}))
        return ReplayTerms.model_validate({**rest, "changes": changes})
    except ValidationError as error:
        first = error.errors(include_input=False, include_url=False)[0]
        where = ".".join(map(str, first["loc"]))
        return fail(f"{where}: {first['msg']}" if where else first["msg"].removeprefix("Value error, "), USAGE)


def _refuse_itself(recording: RecordingReader, directory: ReplayDirectory) -> None:
    prefix = replay_prefix(directory.manifest.id)
    if recording.manifest.topic_prefix == prefix:
        fail(f"this recording was made of the topics that this replay writes to ({prefix}); use another --out", USAGE)


class Progress:
    """Lines on stderr: each second on a terminal, each ten seconds in a log."""

    def __init__(
        self, screen: Screen, directory: ReplayDirectory, *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._screen = screen
        self._total = directory.manifest.runs * directory.manifest.terms.repeats
        self._every = 1.0 if screen.for_people else 10.0
        self._clock = clock
        self._began = self._said = clock()

    def note(self, line: str) -> None:
        """Something worth a line of its own."""
        self._screen.note(line)

    def ran(self, tally: Tally) -> None:
        """One more run."""
        now = self._clock()
        if now - self._said >= self._every:
            self._said = now
            self._screen.note(self._line(tally, now - self._began))

    def _line(self, tally: Tally, seconds: float) -> str:
        rate = (tally.finished - tally.earlier) / max(seconds, 0.001)
        left = (self._total - tally.finished) / rate if rate else 0.0
        parts = [f"{tally.finished:,} of {self._total:,} runs", f"{rate:.1f}/s"]
        if tally.diverged:
            parts.append(f"{tally.diverged:,} diverged")
        return " · ".join([*parts, *spent(tally), f"{_duration(left)} left"])


def spent(tally: Tally) -> list[str]:
    """What it used, in words."""
    parts = [f"{tally.tokens:,} tokens"] if tally.tokens else []
    if tally.cost:
        parts.append(f"cost {tally.cost:f}" + (" and unknown" if tally.unknown_costs else ""))
    elif tally.unknown_costs:
        parts.append("cost unknown")
    return parts


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"


def _show(tally: Tally, directory: ReplayDirectory, screen: Screen, *, as_json: bool) -> None:
    codes: dict[str, JsonValue] = dict(tally.codes.most_common())
    if as_json:
        shown: dict[str, JsonValue] = {
            "id": directory.manifest.id,
            "complete": tally.complete,
            "exhausted": tally.exhausted,
            "finished": tally.finished,
            "completed": tally.completed,
            "diverged": tally.diverged,
            "broken_conversations": tally.broken,
            "tokens": tally.tokens,
            "cost": f"{tally.cost:f}",
            "unknown_costs": tally.unknown_costs,
            "tools_from_recording": tally.tools_from_recording,
            "tools_real": tally.tools_real,
            "errors": codes,
        }
        screen.json(shown)
        return
    screen.out(f"{tally.finished:,} runs: {tally.completed:,} completed, {tally.diverged:,} diverged")
    screen.out(f"tools: {tally.tools_from_recording:,} answered from the recording, {tally.tools_real:,} really ran")
    for code, count in codes.items():
        screen.out(f"  {code}: {count}")
    for line in spent(tally):
        screen.out(line)
    if tally.broken:
        screen.out(f"{tally.broken:,} turns did not fit the conversation as it went here: recorded history was taken")
    for run in directory.results():
        if run.divergence is not None:
            screen.out(f"first divergence: {run.run_id}, after {run.divergence.index} steps: {run.divergence.what}")
            break
    if tally.exhausted is not None:
        screen.note(
            f"not complete: stopped at {tally.exhausted}; the same command with a larger bound goes on", "yellow"
        )
