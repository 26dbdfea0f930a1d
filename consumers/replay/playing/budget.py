"""How fast a replay goes, how much it may use, and what it has used."""

import asyncio
from collections import Counter
from dataclasses import dataclass, field, replace
from decimal import Decimal
from typing import Final, Self

from agentstream.schemas.recordings import ReplayedRun

COST_UNKNOWN: Final = "a cost that nobody knows"
"""Why a replay with a bound on money ends where no run says what it cost: the bound could never hold."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Budget:
    """Bounds of a replay, all its parts together: what was done before an interruption counts as well.

    What is under way when a bound is reached is finished, and may pass it.
    """

    concurrency: int = 4
    """Runs at once."""
    rate: float | None = None
    """Runs started a second at most; None: as fast as they end."""
    max_runs: int | None = None
    """Runs to play."""
    max_tokens: int | None = None
    """Tokens read and written."""
    max_cost: Decimal | None = None
    """In the currency of the costs. Where no run's cost is known it is reached with the first one that used tokens;
    else those of unknown cost count as nothing, and are told of."""

    def left_by(self, tally: "Tally") -> Self:
        """What is left of it for another replay once this much is used."""
        return replace(
            self,
            max_runs=None if self.max_runs is None else max(0, self.max_runs - tally.finished),
            max_tokens=None if self.max_tokens is None else max(0, self.max_tokens - tally.tokens),
            max_cost=None if self.max_cost is None else max(Decimal(0), self.max_cost - tally.cost),
        )


@dataclass(kw_only=True, slots=True)
class Tally:
    """What came of a replay so far."""

    finished: int = 0
    """Runs with a result, those of earlier parts included."""
    earlier: int = 0
    """Of them, those of earlier parts."""
    completed: int = 0
    """Runs that completed."""
    diverged: int = 0
    """Runs that left the recording."""
    broken: int = 0
    """Runs asked with the recorded history, because the relived one did not fit."""
    tokens: int = 0
    """Read and written."""
    cost: Decimal = Decimal(0)
    """Of the runs whose cost is known."""
    known_costs: int = 0
    """Runs whose cost is known."""
    unknown_costs: int = 0
    """Runs that used tokens and whose cost is unknown."""
    tools_from_recording: int = 0
    """Tool calls answered from the recording."""
    tools_real: int = 0
    """Tool calls that ran."""
    codes: Counter[str] = field(default_factory=Counter)
    """Failed runs by error code."""
    exhausted: str | None = None
    """The bound that was reached, in words; None while there is room."""
    refused: bool = False
    """Whether it ended because the first runs all failed for want of a model, see `Refusals`."""
    complete: bool = False
    """Whether every run of the recording was played as often as was asked for."""

    def add(self, run: ReplayedRun, *, earlier: bool = False) -> None:
        """Count one run."""
        result = run.result
        self.finished += 1
        self.earlier += earlier
        self.completed += result.status == "completed"
        self.diverged += run.divergence is not None
        self.broken += run.conversation == "broken"
        tokens = sum(each.input_tokens + each.output_tokens for each in result.usage)
        self.tokens += tokens
        if result.cost is not None:
            self.cost += Decimal(result.cost.amount)
            self.known_costs += 1
        elif tokens:
            self.unknown_costs += 1
        self.tools_from_recording += run.tools_from_recording
        self.tools_real += run.tools_real
        if result.error is not None:
            self.codes[result.error.code.value] += 1

    def reached(self, budget: Budget, *, under_way: int) -> str | None:
        """The bound that forbids another run, in words."""
        if budget.max_runs is not None and self.finished + under_way >= budget.max_runs:
            return f"{budget.max_runs:,} runs"
        if budget.max_tokens is not None and self.tokens >= budget.max_tokens:
            return f"{budget.max_tokens:,} tokens"
        if budget.max_cost is not None and self.cost >= budget.max_cost:
            return f"a cost of {budget.max_cost}"
        if budget.max_cost is not None and self.unknown_costs and not self.known_costs:
            return COST_UNKNOWN
        return None


class Pace:
    """Starts no more than so many a second, evenly: after a pause nothing is made up for."""

    def __init__(self, rate: float | None) -> None:
        self._gap = 0.0 if rate is None else 1.0 / rate
        self._next = 0.0

    async def turn(self) -> None:
        """Wait for the next start."""
        if not self._gap:
            return
        now = asyncio.get_running_loop().time()
        due = max(self._next, now)
        self._next = due + self._gap
        if due > now:
            await asyncio.sleep(due - now)
