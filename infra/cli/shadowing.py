"""`agentstream shadow`."""

import asyncio
import secrets
import signal
import sys
from collections.abc import Coroutine, Iterator
from contextlib import AsyncExitStack, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory

from agentstream.consumers.replay.comparing.records import evaluation_results
from agentstream.consumers.replay.comparing.rules import parse_rule
from agentstream.consumers.replay.comparing.specs import make_evaluators
from agentstream.consumers.replay.comparing.verdict import check_rules
from agentstream.consumers.replay.playing import Budget, Player, Tally
from agentstream.consumers.replay.recording.redacting import Rules
from agentstream.consumers.replay.recording.selection import Selection
from agentstream.consumers.replay.shadowing.following import EndedRuns
from agentstream.consumers.replay.shadowing.keeping import ShadowDirectory, shadow_manifest
from agentstream.consumers.replay.shadowing.rolling import RollingComparison
from agentstream.consumers.replay.shadowing.shadow import Publish, Shadow, to_nobody
from agentstream.consumers.replay.words import counted
from agentstream.infra.cli.asking import Asked
from agentstream.infra.cli.context import Cluster, Context
from agentstream.infra.cli.evaluations import evaluations_published
from agentstream.infra.cli.exits import USAGE, fail, no_verdict_if_unwritable
from agentstream.infra.cli.replay_lines import spent
from agentstream.infra.cli.replaying import terms_of
from agentstream.infra.cli.screen import Screen
from agentstream.infra.cli.shadow_board import Board
from agentstream.infra.connection import redactor
from agentstream.infra.models import usable_model
from agentstream.infra.replaying import in_process
from agentstream.infra.settings import Settings

NOT_JUDGED = 2


@dataclass(frozen=True, kw_only=True, slots=True)
class Wanted:
    """What stands on the command line."""

    out: Path
    """Where it goes."""
    asked: Asked
    """Changes, as `invoke` takes them."""
    terms: dict[str, object]
    """All of the terms but the changes."""
    sample: float
    """Of the sessions, this share."""
    seed: int
    """Which of them."""
    group: str | None
    """The consumer group, where it was named."""
    budget: Budget
    """How fast, and how much."""
    seconds: float | None
    """How long; None: until it is ended."""
    max_lag: float
    """Results that are older, in seconds, are passed over."""
    window: int
    """Pairs that are compared."""
    every: float
    """Seconds between two tables."""
    specs: tuple[str, ...]
    """Evaluators."""
    rules: tuple[str, ...]
    """Rules, which are alarms while they hold."""
    publish: bool
    """Whether outcomes go to the topic of evaluations."""


def run_shadow(context: Context, wanted: Wanted, *, as_json: bool) -> None:
    """Follow until a bound or a signal; tables go to stdout, alarms and what happens to stderr."""
    terms = terms_of(wanted.asked, wanted.terms)
    if terms.mode == "live":
        fail("--mode live: a shadow's tools are recorded ones: give hybrid or frozen", USAGE)
    settings = context.settings()
    context.quiet_logs(settings)
    workers = {settings.group_id, context.as_dev(settings)[0].group_id}
    if wanted.group in workers:
        fail(f"--group {wanted.group}: is the workers' own; leave it out, or name another one", USAGE)
    cluster = context.cluster(settings)
    fresh = shadow_manifest(terms, shadow_id=secrets.token_hex(5), begun_at=datetime.now(UTC))
    evaluators, alarms = make_evaluators(wanted.specs), [parse_rule(text) for text in wanted.rules]
    # Before there is a directory: what is wrong with the options is no shadow that could be gone on with.
    check_rules(evaluators, alarms)
    rules, screen = Rules(redactor(settings)), Screen()
    with (
        no_verdict_if_unwritable(),
        TemporaryDirectory(prefix="agentstream-shadow-") as scratch,
        ShadowDirectory.open(wanted.out, fresh, rules, topic_prefix=cluster.topics.prefix) as directory,
    ):
        rolling = RollingComparison(
            directory.replay, evaluators, scratch=Path(scratch), rules=alarms, window=wanted.window
        )
        board = Board(screen, rolling, every=wanted.every, as_json=as_json)
        tally = asyncio.run(_follow(settings, cluster, wanted, directory, board))
        standing = rolling.standing()
    for line in (f"{counted(tally.finished, 'run')}, {tally.diverged:,} left the recording", *spent(tally)):
        screen.note(line)
    code = NOT_JUDGED if standing is None else standing.verdict.exit_code
    if code:
        sys.exit(code)


async def _follow(
    settings: Settings, cluster: Cluster, wanted: Wanted, directory: ShadowDirectory, board: Board
) -> Tally:
    terms, replay = directory.replay.manifest.terms, directory.replay.manifest.id
    group = wanted.group or f"{settings.group_id}-shadow-{replay}"
    selection = Selection(sample=wanted.sample, seed=wanted.seed)
    async with AsyncExitStack() as stack:
        try:
            if terms.mode != "frozen":
                settings = (await stack.enter_async_context(usable_model(settings))).settings
            stage = await stack.enter_async_context(in_process(settings, terms, tools=None, progress=board.note))
            publish = await _publish(stack, cluster, wanted) if wanted.publish else to_nobody
            ended = await stack.enter_async_context(
                EndedRuns(cluster.connection, cluster.topics, group, selection, max_lag=wanted.max_lag)
            )
        except BaseException:
            # The broker is away, say. From here on it must stay: its id is in the name of the group that knows where.
            directory.withdraw()
            raise
        player = Player(directory.replay, stage.performer, stage.playbacks, budget=wanted.budget)
        shadow = Shadow(ended, directory, player, board.rolling, budget=wanted.budget, publish=publish)
        await _until_told(shadow.run(lambda: board.round(ended, player.tally, group)), wanted.seconds)
        board.end(ended, player.tally)
        if bound := player.tally.reached(wanted.budget, under_way=0) or player.tally.exhausted:
            board.note(f"ended at {bound}")
        return player.tally


async def _publish(stack: AsyncExitStack, cluster: Cluster, wanted: Wanted) -> Publish:
    opened = evaluations_published(cluster, service="agentstream-shadow", recording=wanted.out.resolve().name)
    published = await stack.enter_async_context(opened)

    async def publish(evidence: Path) -> None:
        await published(lambda: evaluation_results(evidence))

    return publish


async def _until_told(running: Coroutine[None, None, None], seconds: float | None) -> None:
    """Let it run to its end, so many seconds, or until a signal. Raises what it raises."""
    following = asyncio.create_task(running, name="shadow")
    try:
        with _told_to_stop() as stop:
            stopping = asyncio.create_task(stop.wait(), name="stop")
            await asyncio.wait({following, stopping}, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
            stopping.cancel()
    finally:
        following.cancel()
        (outcome,) = await asyncio.gather(following, return_exceptions=True)
    if isinstance(outcome, Exception):
        raise outcome


@contextmanager
def _told_to_stop() -> Iterator[asyncio.Event]:
    """Set by Ctrl-C and SIGTERM, which end a shadow in peace."""
    loop, stop = asyncio.get_running_loop(), asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop.set)
    try:
        yield stop
    finally:
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.remove_signal_handler(number)
