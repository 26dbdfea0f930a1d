"""The last scene: a change is judged beside production, while that goes on."""

import asyncio
import secrets
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import UTC, datetime
from typing import Final

from agentstream.consumers.replay.comparing.rules import parse_rule
from agentstream.consumers.replay.comparing.specs import make_evaluators
from agentstream.consumers.replay.comparing.summary import EvaluatorSummary
from agentstream.consumers.replay.playing import Budget, Player, ReplayTerms
from agentstream.consumers.replay.recording.redacting import Rules
from agentstream.consumers.replay.recording.selection import Selection
from agentstream.consumers.replay.recording.stretch import Stretch
from agentstream.consumers.replay.shadowing.following import EndedRuns
from agentstream.consumers.replay.shadowing.keeping import ShadowDirectory, shadow_manifest
from agentstream.consumers.replay.shadowing.rolling import RollingComparison, Standing
from agentstream.consumers.replay.shadowing.shadow import Shadow
from agentstream.infra.connection import redactor
from agentstream.infra.demo.judging import CANDIDATE, FAIL_IF, replay_settings, topic_ends
from agentstream.infra.demo.scenes import Ended, Played, ask_at_once
from agentstream.infra.demo.stage import SceneFailed, Stage
from agentstream.infra.replaying import in_process
from agentstream.schemas.headers import CE_SUBJECT, header_text, last_wins
from agentstream.schemas.requests import AgentParameters

PLAIN: Final = ("Count to 5.", "Hello, is anybody there?", "Count to 8.")
WITH_BASH: Final = ("Run `date` and tell me what it says.", "Run `uname` and tell me what it says.")
_SHELL: Final = AgentParameters(tools=("bash",), agents_md="Use the tools you have. Answer in one sentence.")
_AT_ONCE: Final = 4
_SECONDS: Final = 60.0


class Beside:
    """A shadow that follows, and how that is shown."""

    def __init__(self, stage: Stage, ended: EndedRuns, player: Player, rolling: RollingComparison) -> None:
        self._stage = stage
        self._ended = ended
        self._player = player
        self._rolling = rolling
        self._round = asyncio.Event()
        self._shown = 0
        self._alarmed = False

    def told(self) -> None:
        """After each round: a line for each that brought something, and an alarm when it begins."""
        self._round.set()
        tally, standing = self._player.tally, self._rolling.standing()
        if standing is None or tally.finished == self._shown:
            return
        self._shown = tally.finished
        tools = _tools(standing)
        self._stage.show.note(
            f"shadow: {tools.cases - len(tools.worse)} of {tools.cases} pairs use the same tools, "
            f"{tally.tools_real} tools really ran"
        )
        (rule,) = standing.verdict.rules
        if rule.state == "failed" and not self._alarmed:
            self._alarmed = True
            self._stage.show.alarm(f"{rule.rule}: {rule.why}")

    async def follows(self, shadowing: asyncio.Task[None]) -> None:
        """Wait until it follows. Raises what the shadow ended with."""
        await self._until(lambda: self._ended.partitions > 0, shadowing)

    async def judged(self, runs: int, shadowing: asyncio.Task[None]) -> Standing:
        """Wait until it has judged so many runs. Raises what the shadow ended with."""
        await self._until(lambda: self._shown >= runs, shadowing)
        standing = self._rolling.standing()
        assert standing is not None, "something was shown"
        return standing

    async def _until(self, condition: Callable[[], bool], shadowing: asyncio.Task[None]) -> None:
        async with asyncio.timeout(_SECONDS):
            while not condition():
                self._round.clear()
                waiting = asyncio.create_task(self._round.wait(), name="round")
                await asyncio.wait({waiting, shadowing}, return_when=asyncio.FIRST_COMPLETED)
                waiting.cancel()
                if shadowing.done():
                    shadowing.result()
                    raise SceneFailed("the shadow ended by itself")


async def shadow(stage: Stage, played: Played) -> None:
    """A shadow judges the same change while production goes on"""
    began = time.monotonic()
    before = await topic_ends(stage)
    ended: list[Ended] = []
    async with _beside(stage) as (beside, shadowing):
        await beside.follows(shadowing)
        stage.show.note("The shadow follows, with no bash and with recorded answers for tools. Requests go on:")
        for texts, parameters in ((PLAIN, AgentParameters()), (WITH_BASH, _SHELL)):
            ended += await ask_at_once(stage, texts, parameters)
        standing = await beside.judged(len(ended), shadowing)
    played.runs += ended
    _check(standing, {each.result.run_id for each in ended[len(PLAIN) :]})
    wrote = await _runs_since(stage, before)
    if wrote != {each.result.run_id for each in ended}:
        raise SceneFailed(f"{len(wrote)} runs left records on the topics, and {len(ended)} were asked for")
    stage.show.note(
        f"Each record of this scene is of one of these {len(ended)} runs: the shadow wrote none. "
        f"({time.monotonic() - began:.1f} s)"
    )


async def _runs_since(stage: Stage, begins: Mapping[str, Mapping[int, int]]) -> set[str]:
    """The runs that the records are of which came to the topics since these offsets."""

    async def of(name: str) -> set[str]:
        async with Stretch(stage.connection, name, committed=True) as stretch:
            ends = await stretch.ends(begins[name])
            return {
                header_text(last_wins(record.headers), CE_SUBJECT) or (record.key or b"").decode("utf-8", "replace")
                async for batch in stretch.batches(begins[name], ends)
                for record in batch.records
            }

    return set[str]().union(*await asyncio.gather(*map(of, begins)))


def _check(standing: Standing, with_bash: set[str]) -> None:
    worse = set(_tools(standing).worse)
    if standing.verdict.state != "failed" or worse != with_bash:
        raise SceneFailed(f"the runs that need the shell were to be found, and these were: {', '.join(worse)}")


def _tools(standing: Standing) -> EvaluatorSummary:
    return next(one for one in standing.summaries if one.evaluator.name == "tools")


@asynccontextmanager
async def _beside(stage: Stage) -> AsyncIterator[tuple[Beside, asyncio.Task[None]]]:
    """As `agentstream shadow` does it, in this process."""
    settings, terms = replay_settings(stage), ReplayTerms(mode="hybrid", changes=CANDIDATE)
    fresh = shadow_manifest(terms, shadow_id=secrets.token_hex(5), begun_at=datetime.now(UTC))
    group, budget = f"{stage.group_id}-shadow-{fresh.id}", Budget(concurrency=_AT_ONCE)
    rules = Rules(redactor(stage.settings))
    async with AsyncExitStack() as stack:
        directory = stack.enter_context(
            ShadowDirectory.open(stage.home / "shadow", fresh, rules, topic_prefix=stage.topics.prefix)
        )
        opened = await stack.enter_async_context(in_process(settings, terms, tools=None))
        player = Player(directory.replay, opened.performer, opened.playbacks, budget=budget)
        rolling = RollingComparison(
            directory.replay, make_evaluators(("tools",)), scratch=stage.home, rules=[parse_rule(FAIL_IF)]
        )
        ended = await stack.enter_async_context(EndedRuns(stage.connection, stage.topics, group, Selection()))
        beside = Beside(stage, ended, player, rolling)
        task = asyncio.create_task(
            Shadow(ended, directory, player, rolling, budget=budget).run(beside.told), name="shadow"
        )
        stack.push_async_callback(_end, task)
        yield beside, task


async def _end(task: asyncio.Task[None]) -> None:
    task.cancel()
    await asyncio.wait({task})
