"""How a shadow stands, in a terminal and in a log: the table now and then, alarms when they begin and end."""

import math
import time
from dataclasses import replace

from pydantic import JsonValue

from agentstream.consumers.replay.comparing.terminal import COLUMNS, remarks, table_rows, verdict_lines
from agentstream.consumers.replay.playing import Tally
from agentstream.consumers.replay.shadowing.following import EndedRuns, Passed
from agentstream.consumers.replay.shadowing.rolling import RollingComparison, Standing
from agentstream.consumers.replay.words import counted
from agentstream.infra.cli.screen import Screen


class Board:
    """Tables go to stdout, the rest to stderr. `every`: seconds between two tables."""

    def __init__(self, screen: Screen, rolling: RollingComparison, *, every: float, as_json: bool) -> None:
        self.rolling = rolling
        self._screen = screen
        self._every = every
        self._as_json = as_json
        self._said_at = time.monotonic()
        self._judged = self._played = 0
        self._shown: tuple[int, Passed | None] | None = None
        self._follows = False
        self._too_old = self._expired = 0
        self._slow = False
        self._alarms: set[str] = set()

    def note(self, line: str) -> None:
        """Something worth a line of its own."""
        self._screen.note(line)

    def round(self, ended: EndedRuns, tally: Tally, group: str) -> None:
        """After each round."""
        if ended.partitions and not self._follows:
            self._follows = True
            self.note(f"following {ended.partitions} partitions as {group}")
        self._not_kept_up(ended.passed, tally)
        if tally.finished != self._judged and time.monotonic() - self._said_at >= self._every:
            self._show(ended, tally)

    def end(self, ended: EndedRuns, tally: Tally) -> None:
        """How it stands at the end."""
        if self._shown != self._state(ended, tally) and not self._show(ended, tally):
            self._screen.note("nothing was compared: no run of the sample has ended", "yellow")
        passed = ended.passed
        self.note(
            f"not taken: {passed.not_drawn:,} outside the sample, {passed.cancelled:,} cancelled, "
            f"{passed.without_request:,} whose request is gone, {passed.too_old:,} too old"
        )

    def _not_kept_up(self, passed: Passed, tally: Tally) -> None:
        if passed.expired > self._expired:
            lost, self._expired = passed.expired - self._expired, passed.expired
            self._screen.note(f"up to {lost:,} results expired before they were read: retention overtook it", "red")
        if passed.too_old > self._too_old:
            if not self._slow:
                self._screen.note("it does not keep up: results older than --max-lag are passed over", "red")
            self._slow, self._too_old = True, passed.too_old
        elif self._slow and tally.finished > self._played:
            self._slow = False
            self._screen.note(f"it keeps up again: {passed.too_old:,} results were passed over so far", "green")
        self._played = tally.finished

    def _show(self, ended: EndedRuns, tally: Tally) -> bool:
        """Whether there is anything to show."""
        self._judged, self._said_at = tally.finished, time.monotonic()
        if (standing := self.rolling.standing()) is None:
            return False
        self._shown = self._state(ended, tally)
        self._alarm(standing)
        if self._as_json:
            self._screen.json(_document(standing, ended, tally))
            return True
        self.note(
            f"{counted(tally.finished, 'run')}, {tally.diverged:,} left the recording, {ended.behind:.0f} s behind"
        )
        if not self._screen.for_people:
            self._screen.out("\t".join(COLUMNS))
        self._screen.table(COLUMNS, table_rows(standing.summaries))
        for line in (*remarks(standing.comparison, standing.summaries), *verdict_lines(standing.verdict)):
            self._screen.out(line)
        return True

    def _state(self, ended: EndedRuns, tally: Tally) -> tuple[int, Passed | None]:
        """What a table is of: while it is the same, another one would say the same. Only JSON has what passed by."""
        return tally.finished, replace(ended.passed) if self._as_json else None

    def _alarm(self, standing: Standing) -> None:
        now = {one.rule: one.why for one in standing.verdict.rules if one.state == "failed"}
        for rule in sorted(now.keys() - self._alarms):
            self._screen.note(f"ALARM: {rule}: {now[rule]}", "red")
        for rule in sorted(self._alarms - now.keys()):
            self._screen.note(f"no longer: {rule}", "green")
        self._alarms = set(now)


def _document(standing: Standing, ended: EndedRuns, tally: Tally) -> JsonValue:
    evaluators: list[JsonValue] = [
        {
            "evaluator": one.evaluator.name,
            "cases": one.cases,
            "baseline": None if one.baseline is None else one.baseline.mean,
            "candidate": None if one.candidate is None else one.candidate.mean,
            "difference": one.difference,
            "interval": [edge if math.isfinite(edge) else None for edge in one.interval],
            "better": [*one.better],
            "worse": [*one.worse],
        }
        for one in standing.summaries
    ]
    rules: list[JsonValue] = [{"rule": one.rule, "state": one.state, "why": one.why} for one in standing.verdict.rules]
    passed = ended.passed
    return {
        "runs": tally.finished,
        "left_the_recording": tally.diverged,
        "seconds_behind": round(ended.behind, 3),
        "not_taken": {
            "outside_the_sample": passed.not_drawn,
            "cancelled": passed.cancelled,
            "without_request": passed.without_request,
            "too_old": passed.too_old,
            "expired_offsets": passed.expired,
        },
        "evaluators": evaluators,
        "diverged": [*standing.comparison.diverged],
        "rules": rules,
        "verdict": standing.verdict.state,
    }
