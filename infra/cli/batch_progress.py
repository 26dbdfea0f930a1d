"""How far `invoke --file` is: one line that renews itself on a terminal, a line each ten seconds in a log."""

from collections import Counter
from dataclasses import dataclass, field
from datetime import datetime

from agentstream.schemas.results import InvokeResult

LOG_SECONDS = 10.0


@dataclass(kw_only=True, slots=True)
class Tally:
    """What came of the lines so far. Times are the caller's, in seconds."""

    total: int | None
    """Lines there are; None: not known, they come from a pipe."""
    began: float
    """When it began."""
    began_at: datetime
    """The same on the wall's clock."""
    done: Counter[str] = field(default_factory=Counter)
    """Results by status, of this process."""
    before: int = 0
    """Results that stood in the output when it began."""
    before_flawed: int = 0
    """Of these, those of runs that did not complete."""
    broken: int = 0
    """Lines that are no request."""
    lost: int = 0
    """Requests without a result: out of patience, or refused."""
    older: int = 0
    """Results, among those of this process, of runs that had ended before it began."""

    def took(self, result: InvokeResult) -> None:
        """One more result."""
        self.done[result.status] += 1
        self.older += result.ended_at < self.began_at

    def stood_there(self, status: str) -> None:
        """One more result that the output had already."""
        self.before += 1
        self.before_flawed += status != "completed"

    @property
    def flawless(self) -> bool:
        """Whether every line was a request that completed, now or before."""
        flaws = self.broken + self.lost + self.before_flawed
        return not flaws and self.done.total() == self.done["completed"]

    def line(self, now: float, under_way: int) -> str:
        """How far it is, on one line."""
        ended = self.done.total() + self.lost + self.broken
        seen = ended + self.before
        of = "" if self.total is None else f" of {self.total:,}"
        parts = [f"{seen:,}{of}", f"{under_way:,} under way"]
        seconds = max(now - self.began, 0.001)
        rate = self.done.total() / seconds
        parts.append(f"{rate:.1f}/s")
        if self.total is not None and rate:
            parts.append(f"{duration(max(self.total - seen, 0) / rate)} left")
        return " · ".join([*parts, *self._flaws()])

    def summary(self, now: float) -> str:
        """What it came to, on one line."""
        seconds = max(now - self.began, 0.001)
        parts = [f"{self.done['completed']:,} completed"]
        if self.before:
            flawed = f" ({self.before_flawed:,} of them not completed)" if self.before_flawed else ""
            parts.append(f"{self.before:,} were there before{flawed}")
        rate = f"{self.done.total() / seconds:.1f}/s"
        return " · ".join([*parts, *self._flaws(), f"{duration(seconds)}, {rate}"])

    def _flaws(self) -> list[str]:
        parts = [f"{self.done[status]:,} {status}" for status in sorted(self.done) if status != "completed"]
        if self.lost:
            parts.append(f"{self.lost:,} without a result")
        if self.broken:
            parts.append(f"{self.broken:,} broken {'line' if self.broken == 1 else 'lines'}")
        return parts


def duration(seconds: float) -> str:
    """Such as `3 min 20 s`."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"
