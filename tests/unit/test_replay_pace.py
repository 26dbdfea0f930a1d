"""How fast a replay goes, and what it says meanwhile."""

import asyncio
import io
from decimal import Decimal
from pathlib import Path

from agentstream.consumers.replay.playing import ReplayDirectory, ReplayTerms, Tally
from agentstream.consumers.replay.playing.budget import Pace
from agentstream.infra.cli.replay_lines import Progress
from agentstream.infra.cli.screen import Screen
from tests.support.replays import manifest
from tests.virtual_time import in_virtual_time


def test_starts_are_even_and_a_pause_is_not_made_up_for() -> None:
    async def starts() -> list[float]:
        pace, loop = Pace(10.0), asyncio.get_running_loop()
        began, found = loop.time(), []
        for number in range(6):
            if number == 3:
                await asyncio.sleep(1.0)
            await pace.turn()
            found.append(round(loop.time() - began, 3))
        return found

    assert in_virtual_time(starts()) == [0.0, 0.1, 0.2, 1.2, 1.3, 1.4]


def test_progress_tells_rate_spend_and_the_time_that_is_left(tmp_path: Path) -> None:
    terms, now, err = ReplayTerms(mode="live", repeats=2), [0.0], io.StringIO()
    tally = Tally(earlier=100, diverged=3, tokens=12_345, cost=Decimal("0.50"), unknown_costs=1)
    with ReplayDirectory.open(tmp_path, manifest(1_000, terms)) as directory:
        progress = Progress(Screen(out=io.StringIO(), err=err), directory, clock=lambda: now[0])
        for second in range(1, 31):
            now[0], tally.finished = float(second), 100 + 10 * second
            progress.ran(tally)
    assert err.getvalue().splitlines() == [
        "200 of 2,000 runs · 10.0/s · 3 diverged · 12,345 tokens · cost 0.50 and unknown · 3 min 0 s left",
        "300 of 2,000 runs · 10.0/s · 3 diverged · 12,345 tokens · cost 0.50 and unknown · 2 min 50 s left",
        "400 of 2,000 runs · 10.0/s · 3 diverged · 12,345 tokens · cost 0.50 and unknown · 2 min 40 s left",
    ]
