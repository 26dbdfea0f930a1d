"""What the scenes before it left on the log is the evaluation set of a change."""

import asyncio
import secrets
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from agentstream.consumers.replay.comparing.comparison import Sources
from agentstream.consumers.replay.comparing.report import Report, make_report
from agentstream.consumers.replay.comparing.sides import Recorded, ReplayAnswers
from agentstream.consumers.replay.playing import Budget, Player, ReplayDirectory, ReplayManifest, ReplayTerms, Tally
from agentstream.consumers.replay.recording.capture import Capture
from agentstream.consumers.replay.recording.files import RecordingReader
from agentstream.consumers.replay.recording.redacting import Rules
from agentstream.consumers.replay.recording.selection import Selection
from agentstream.consumers.replay.recording.spool import Spool
from agentstream.consumers.replay.recording.stretch import Stretch
from agentstream.consumers.replay.recording.writing import begin, write_recording
from agentstream.infra.connection import redactor
from agentstream.infra.demo.scenes import KILLED, TOOLS, Played
from agentstream.infra.demo.stage import SceneFailed, Stage
from agentstream.infra.replaying import in_process
from agentstream.infra.settings import Settings
from agentstream.infra.topics import every_topic
from agentstream.schemas.requests import AgentParameters

FAIL_IF: Final = "pass_rate(tools) < baseline"
AT_ONCE: Final = 14
CANDIDATE: Final = AgentParameters(tools=("read",))


@dataclass(frozen=True, kw_only=True, slots=True)
class Replayed:
    """A replay that was played."""

    path: Path
    """Its directory."""
    tally: Tally
    """What came of it."""


async def judge_a_change(stage: Stage, played: Played) -> None:
    """Judge a change on what was just recorded: may the agent do without its shell?"""
    before = await topic_ends(stage)
    # The killed one is left out only because it is long: a candidate that is asked again is paid for again.
    chosen = {each.name: each.result.run_id for each in played.runs if each.name != KILLED}
    recording = await _recorded(stage, frozenset(chosen.values()))
    frozen = await _replayed(stage, recording, "frozen", ReplayTerms(mode="frozen"))
    _check_frozen(stage, frozen)
    candidate = await _replayed(stage, recording, "candidate", ReplayTerms(mode="hybrid", changes=CANDIDATE))
    tally = candidate.tally
    stage.show.note(
        f"replayed without bash: {tally.finished} runs, the model is asked again; tool calls answered from the "
        f"recording: {tally.tools_from_recording}, really run: {tally.tools_real}"
    )
    sources = Sources(recording="the demo", baseline=Recorded(), candidate=ReplayAnswers.open(candidate.path))
    report = await make_report(
        sources, recording, evaluators=("tools", "tokens"), fail_if=(FAIL_IF,), out=stage.home / "report"
    )
    stage.show.comparison(report.summaries, report.lines())
    _check_verdict(report, chosen[TOOLS])
    stage.show.note(
        f"Worse is the run of scene 2, which needs bash: `agentstream compare` ends with {report.verdict.exit_code}, "
        "and a CI job would stop this change."
    )
    if await topic_ends(stage) != before:
        raise SceneFailed("records came to the topics while nothing but replays ran")
    stage.show.note(f"The {len(before)} topics of the demo end where they did before: no replay wrote to them.")


async def _recorded(stage: Stage, runs: frozenset[str]) -> RecordingReader:
    """As `agentstream capture` does it."""
    directory = stage.home / "recording"
    directory.mkdir()
    selection = Selection(runs=runs)
    with closing(Spool(directory)) as spool:
        begin(spool, {})
        await Capture(stage.connection, stage.topics, selection, spool).read()
        manifest = write_recording(
            directory,
            spool,
            Rules(redactor(stage.settings)),
            stage.topics,
            {"origin": "topics", "selection": selection.document()},
        )
    if manifest.runs != len(runs):
        raise SceneFailed(f"{len(runs)} runs were to be recorded, and {manifest.runs} were")
    stage.show.note(f"recorded: {manifest.runs} runs of {manifest.sessions} sessions, with their events")
    return RecordingReader.open(directory)


async def _replayed(stage: Stage, recording: RecordingReader, name: str, terms: ReplayTerms) -> Replayed:
    """As `agentstream replay` does it: by the worker's code, in this process."""
    fresh = ReplayManifest(
        id=secrets.token_hex(5),
        created_at=datetime.now(UTC),
        recording="demo",
        recording_hash=recording.manifest.content_hash,
        runs=len(recording),
        terms=terms,
    )
    path = stage.home / name
    tools = frozenset({"bash", "read"})
    with ReplayDirectory.open(path, fresh) as directory:
        async with in_process(replay_settings(stage), terms, tools=tools) as opened:
            player = Player(directory, opened.performer, opened.playbacks, budget=Budget(concurrency=AT_ONCE))
            return Replayed(path=path, tally=await player.play(recording))


def replay_settings(stage: Stage) -> Settings:
    """What the demo's workers do not read from the environment must not reach its replays either."""
    return stage.settings.model_copy(update={"harnesses": ("pi",), "tools": ("bash", "read"), "agent_dir": None})


def _check_frozen(stage: Stage, frozen: Replayed) -> None:
    tally = frozen.tally
    stage.show.note(f"replayed frozen: {tally.finished} runs, {tally.diverged} diverged; no model was asked")
    if tally.diverged or tally.completed != tally.finished:
        raise SceneFailed(f"nothing was changed, and {tally.completed} of {tally.finished} runs went as recorded")


def _check_verdict(report: Report, without_tools: str) -> None:
    tools = next(one for one in report.summaries if one.evaluator.name == "tools")
    if report.verdict.state != "failed" or without_tools not in tools.worse:
        raise SceneFailed(f"the run that needs the shell was to be found, and the verdict is {report.verdict.state}")


async def topic_ends(stage: Stage) -> dict[str, dict[int, int]]:
    """Where all topics end."""

    async def of(name: str) -> dict[int, int]:
        async with Stretch(stage.connection, name, committed=False) as stretch:
            return await stretch.ends(await stretch.partitions())

    names = every_topic(stage.topics)
    return dict(zip(names, await asyncio.gather(*map(of, names)), strict=True))
