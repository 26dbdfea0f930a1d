"""`agentstream shadow`."""

import asyncio
import math
import secrets
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import AsyncExitStack, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory

from pydantic import JsonValue

from agentstream.consumers.replay.comparing.rules import parse_rule
from agentstream.consumers.replay.comparing.specs import make_evaluators
from agentstream.consumers.replay.comparing.terminal import COLUMNS, remarks, table_rows, verdict_lines
from agentstream.consumers.replay.playing import Budget, Player, ReplayManifest, Tally
from agentstream.consumers.replay.recording.redacting import Rules
from agentstream.consumers.replay.recording.selection import Selection
from agentstream.consumers.replay.shadowing.following import EndedRuns
from agentstream.consumers.replay.shadowing.keeping import ShadowDirectory
from agentstream.consumers.replay.shadowing.rolling import RollingComparison, Standing
from agentstream.consumers.replay.shadowing.shadow import Shadow
from agentstream.infra.cli.context import Cluster, Context
from agentstream.infra.cli.exits import USAGE, fail
from agentstream.infra.cli.invoking import Asked
from agentstream.infra.cli.replaying import spent, terms_of
from agentstream.infra.cli.screen import Screen
from agentstream.infra.connection import redactor
from agentstream.infra.models import usable_model
from agentstream.infra.replaying import in_process
from agentstream.infra.settings import Settings


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
    window: int
    """Pairs that are compared."""
    every: float
    """Seconds between two tables."""
    specs: tuple[str, ...]
    """Evaluators."""
    rules: tuple[str, ...]
    """Rules, which are alarms while they hold."""


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
    fresh = ReplayManifest(
        id=secrets.token_hex(5),
        created_at=datetime.now(UTC),
        recording="recording",
        recording_hash="",
        runs=0,
        terms=terms,
    )
    rules = Rules(redactor(settings))
    opened = ShadowDirectory.open(wanted.out, fresh, rules, topic_prefix=cluster.topics.prefix)
    with TemporaryDirectory(prefix="agentstream-shadow-") as scratch, opened as directory:
        rolling = RollingComparison(
            directory.replay,
            make_evaluators(wanted.specs),
            scratch=Path(scratch),
            rules=[parse_rule(text) for text in wanted.rules],
            window=wanted.window,
        )
        screen = Screen()
        tally = asyncio.run(_follow(settings, cluster, wanted, directory, _Board(screen, rolling, wanted, as_json)))
        standing = rolling.standing()
    for line in (f"{tally.finished:,} runs, {tally.diverged:,} left the recording", *spent(tally)):
        screen.note(line)
    if wanted.rules:
        sys.exit(2 if standing is None else standing.verdict.exit_code)


async def _follow(
    settings: Settings, cluster: Cluster, wanted: Wanted, directory: ShadowDirectory, board: "_Board"
) -> Tally:
    terms, replay = directory.replay.manifest.terms, directory.replay.manifest.id
    group = wanted.group or f"{settings.group_id}-shadow-{replay}"
    selection = Selection(sample=wanted.sample, seed=wanted.seed)
    async with AsyncExitStack() as stack:
        if terms.mode != "frozen":
            settings = (await stack.enter_async_context(usable_model(settings))).settings
        stage = await stack.enter_async_context(in_process(settings, terms, tools=None, progress=board.note))
        player = Player(directory.replay, stage.performer, stage.playbacks, budget=wanted.budget)
        ended = await stack.enter_async_context(EndedRuns(cluster.connection, cluster.topics, group, selection))
        shadow = Shadow(ended, directory, player, board.rolling, budget=wanted.budget)
        following = asyncio.create_task(shadow.run(lambda: board.round(ended, player.tally, group)), name="shadow")
        try:
            with _told_to_stop() as stop:
                stopping = asyncio.create_task(stop.wait(), name="stop")
                await asyncio.wait({following, stopping}, timeout=wanted.seconds, return_when=asyncio.FIRST_COMPLETED)
                stopping.cancel()
        finally:
            following.cancel()
            (outcome,) = await asyncio.gather(following, return_exceptions=True)
        if isinstance(outcome, Exception):
            raise outcome
        board.show()
        passed = ended.passed
        board.note(
            f"not taken: {passed.not_drawn:,} outside the sample, {passed.cancelled:,} cancelled, "
            f"{passed.without_request:,} whose request is gone"
        )
        if player.tally.exhausted or player.tally.reached(wanted.budget, under_way=0):
            board.note(f"ended at {player.tally.reached(wanted.budget, under_way=0) or player.tally.exhausted}")
        return player.tally


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


class _Board:
    """Says how it stands: the table now and then, an alarm when it begins and when it ends."""

    def __init__(self, screen: Screen, rolling: RollingComparison, wanted: Wanted, as_json: bool) -> None:
        self.rolling = rolling
        self._screen = screen
        self._every = wanted.every
        self._as_json = as_json
        self._said_at = time.monotonic()
        self._judged = 0
        self._follows = False
        self._alarms: set[str] = set()

    def note(self, line: str) -> None:
        """Something worth a line of its own."""
        self._screen.note(line)

    def round(self, ended: EndedRuns, tally: Tally, group: str) -> None:
        """After each round."""
        if ended.partitions and not self._follows:
            self._follows = True
            self.note(f"following {ended.partitions} partitions as {group}")
        if tally.finished != self._judged and time.monotonic() - self._said_at >= self._every:
            self._judged, self._said_at = tally.finished, time.monotonic()
            if (standing := self.rolling.standing()) is not None:
                self._alarm(standing)
                self._show(standing)

    def show(self) -> None:
        """How it stands at the end."""
        if (standing := self.rolling.standing()) is None:
            self.note("nothing was compared: no run of the sample has ended")
        else:
            self._alarm(standing)
            self._show(standing)

    def _alarm(self, standing: Standing) -> None:
        now = {one.rule: one.why for one in standing.verdict.rules if one.state == "failed"}
        for rule in sorted(now.keys() - self._alarms):
            self._screen.note(f"ALARM: {rule}: {now[rule]}", "red")
        for rule in sorted(self._alarms - now.keys()):
            self._screen.note(f"no longer: {rule}", "green")
        self._alarms = set(now)

    def _show(self, standing: Standing) -> None:
        if self._as_json:
            self._screen.json(_document(standing))
            return
        if not self._screen.for_people:
            self._screen.out("\t".join(COLUMNS))
        self._screen.table(COLUMNS, table_rows(standing.summaries))
        for line in (*remarks(standing.comparison, standing.summaries), *verdict_lines(standing.verdict)):
            self._screen.out(line)


def _document(standing: Standing) -> JsonValue:
    evaluators: list[JsonValue] = [
        {
            "evaluator": one.evaluator.name,
            "cases": one.cases,
            "difference": one.difference,
            "interval": [edge if math.isfinite(edge) else None for edge in one.interval],
            "better": [*one.better],
            "worse": [*one.worse],
        }
        for one in standing.summaries
    ]
    rules: list[JsonValue] = [{"rule": one.rule, "state": one.state, "why": one.why} for one in standing.verdict.rules]
    return {"evaluators": evaluators, "diverged": [*standing.comparison.diverged], "rules": rules}
