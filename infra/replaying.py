"""Opens what a replay needs: harnesses played against tapes, and runs in this process or behind Kafka."""

import asyncio
import random
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, replace

from agentstream.consumers.client import AgentClient
from agentstream.consumers.harness.port import Harness
from agentstream.consumers.replay.playing.directory import ReplayError
from agentstream.consumers.replay.playing.harness import ReplayHarness
from agentstream.consumers.replay.playing.performers import InProcess, Performer, ThroughKafka, config_of
from agentstream.consumers.replay.playing.playback import Playbacks
from agentstream.consumers.replay.playing.terms import ReplayTerms
from agentstream.consumers.runs import Runs
from agentstream.infra.compose import agent_config, open_plan
from agentstream.infra.connection import redactor
from agentstream.infra.harnesses import open_harnesses
from agentstream.infra.playback import PlaybackEndpoint
from agentstream.infra.settings import Settings
from agentstream.infra.settings_file import SettingsError
from agentstream.infra.toolchain import Progress, quiet
from agentstream.infra.topics import apply_topics
from agentstream.infra.worker_process import serve
from agentstream.schemas.requests import InvokeRequest
from agentstream.schemas.results import InvokeResult
from agentstream.schemas.topics import Topics


@dataclass(frozen=True, kw_only=True, slots=True)
class Stage:
    """Where the runs of a replay are played."""

    performer: Performer
    """Runs them."""
    playbacks: Playbacks
    """Where their playbacks must be found."""


def replay_prefix(replay: str) -> str:
    """What the names of a replay's topics begin with; without its last character, its group."""
    return f"replay-{replay}."


@asynccontextmanager
async def in_process(
    settings: Settings, terms: ReplayTerms, *, tools: frozenset[str] | None, progress: Progress = quiet
) -> AsyncIterator[Stage]:
    """Play in this process. `tools`: what the runs of the recording ask for; None: not known before.

    Raises as `open_harnesses`.
    """
    _check_tools(settings, terms)
    playbacks = Playbacks()
    async with AsyncExitStack() as stack:
        plain = await stack.enter_async_context(open_harnesses(settings, redactor(settings), progress))
        harnesses = await _played(stack, plain, playbacks, terms)
        config = config_of(agent_config(settings, harnesses), terms.mode, tools or frozenset())
        runs = Runs(harnesses, redactor=redactor(settings), rng=random.Random())
        any_tool = tools is None and terms.mode != "live"
        yield Stage(performer=InProcess(runs, config, any_tool=any_tool), playbacks=playbacks)


@asynccontextmanager
async def through_kafka(  # noqa: PLR0913  # each decides where or what
    settings: Settings,
    terms: ReplayTerms,
    *,
    replay: str,
    tools: frozenset[str],
    partitions: int = 4,
    own_worker: bool = True,
    progress: Progress = quiet,
) -> AsyncIterator[Stage]:
    """Play through topics of the replay's own, which are made here and stay, by a worker in this process.

    Without `own_worker` a fleet must be pointed at the topics; only live replays can be played there, since others
    are answered from this process's memory. Raises SettingsError where the replay would meet other topics or groups.
    """
    own = kafka_settings(settings, replay)
    _check_tools(settings, terms)
    if not own_worker and terms.mode != "live":
        raise SettingsError(f"a {terms.mode} replay is answered from this process: other workers cannot play it")
    playbacks, worker = Playbacks(), None
    async with AsyncExitStack() as stack:
        plan = await stack.enter_async_context(open_plan(own, progress=progress))
        await apply_topics(plan.connection, Topics(prefix=own.topic_prefix), partitions=partitions)
        if own_worker:
            harnesses = await _played(stack, plan.harnesses, playbacks, terms)
            config = config_of(replace(plan.agent_config, harnesses=harnesses), terms.mode, tools)
            stop, ready = asyncio.Event(), asyncio.Event()
            worker = asyncio.create_task(
                serve(
                    replace(plan, harnesses=harnesses, agent_config=config),
                    stop,
                    grace_seconds=0.0,
                    started=lambda _: ready.set(),
                ),
                name="replay worker",
            )
            stack.push_async_callback(_end, worker, stop)
            await _first(worker, ready)
        client = AgentClient(connection=plan.connection, topic_prefix=own.topic_prefix)
        performer: Performer = ThroughKafka(await stack.enter_async_context(client))
        yield Stage(performer=_WhileAlive(performer, worker) if worker else performer, playbacks=playbacks)


def kafka_settings(settings: Settings, replay: str) -> Settings:
    """The settings with topics and group of the replay's own. Raises SettingsError if the settings' are these."""
    prefix = replay_prefix(replay)
    group = prefix.removesuffix(".")
    if settings.topic_prefix == prefix or settings.group_id == group:
        raise SettingsError(
            f"AGENTSTREAM_TOPIC_PREFIX, AGENTSTREAM_GROUP_ID: are those of the replay itself ({prefix}, {group})"
        )
    return settings.model_copy(update={"topic_prefix": prefix, "group_id": group, "http_port": 0})


def _check_tools(settings: Settings, terms: ReplayTerms) -> None:
    """What may really run is what a worker with these settings would run, and nothing else."""
    refused = [tool for tool in terms.real_tools if tool not in settings.tools]
    if refused:
        raise SettingsError(f"AGENTSTREAM_TOOLS: does not allow {', '.join(refused)}, which are to really run")


async def _played(
    stack: AsyncExitStack, harnesses: Mapping[str, Harness], playbacks: Playbacks, terms: ReplayTerms
) -> Mapping[str, Harness]:
    endpoint: str | None = None
    if terms.mode == "frozen":
        endpoint = (await stack.enter_async_context(PlaybackEndpoint(playbacks))).base_url
    live = terms.mode == "live"
    return {
        kind: ReplayHarness(each, playbacks, endpoint=endpoint, plays_unknown=live) for kind, each in harnesses.items()
    }


async def _first(worker: asyncio.Task[None], ready: asyncio.Event) -> None:
    """Wait until the worker serves. Raises what it ended with instead."""
    waiting = asyncio.create_task(ready.wait(), name="replay worker ready")
    try:
        await asyncio.wait({worker, waiting}, return_when=asyncio.FIRST_COMPLETED)
        if worker.done():
            await worker
    finally:
        waiting.cancel()


class _WhileAlive:
    """Performs as long as the worker lives: with it gone, nobody would ever answer."""

    def __init__(self, performer: Performer, worker: asyncio.Task[None]) -> None:
        self._performer = performer
        self._worker = worker

    async def perform(self, request: InvokeRequest) -> InvokeResult:
        """As the port says; raises what the worker ended with."""
        performing = asyncio.create_task(self._performer.perform(request), name=f"perform {request.id}")
        try:
            await asyncio.wait({performing, self._worker}, return_when=asyncio.FIRST_COMPLETED)
            if not performing.done():
                await self._worker
                raise ReplayError("the worker of this replay has ended")
            return performing.result()
        finally:
            performing.cancel()


async def _end(worker: asyncio.Task[None], stop: asyncio.Event) -> None:
    stop.set()
    await asyncio.gather(worker, return_exceptions=True)
