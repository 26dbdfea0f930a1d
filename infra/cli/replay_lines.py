"""What `agentstream replay` says while it plays, and at its end."""

import time
from collections.abc import Callable, Iterator, Sequence

from pydantic import JsonValue

from agentstream.consumers.replay.playing import ReplayDirectory, Tally
from agentstream.consumers.replay.playing.budget import COST_UNKNOWN
from agentstream.consumers.replay.words import counted
from agentstream.infra.cli.screen import Screen


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
    parts = [counted(tally.tokens, "token")] if tally.tokens else []
    if tally.cost:
        parts.append(f"cost {tally.cost:f}" + (" and unknown" if tally.unknown_costs else ""))
    elif tally.unknown_costs:
        parts.append("cost unknown")
    return parts


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"


def show_replay(played: Sequence[tuple[ReplayDirectory, Tally]], screen: Screen, *, as_json: bool) -> None:
    """What it came to; of several, the first is the candidate and the second its baseline."""
    if as_json:
        shown, *baseline = [_document(directory, tally) for directory, tally in played]
        screen.json({**shown, "baseline": baseline[0]} if baseline else shown)
        return
    for name, (directory, tally) in zip(("", "baseline: "), played, strict=False):
        for line in _lines(directory, tally):
            screen.out(f"{name}{line}")
        if not tally.complete:
            screen.note(f"{name}{_incomplete(tally)}", "yellow")


def _document(directory: ReplayDirectory, tally: Tally) -> dict[str, JsonValue]:
    return {
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
        "errors": dict(tally.codes.most_common()),
    }


def _lines(directory: ReplayDirectory, tally: Tally) -> Iterator[str]:
    ends = f"{tally.completed:,} completed, {tally.finished - tally.completed:,} did not"
    yield f"{counted(tally.finished, 'run')}: {ends}; {tally.diverged:,} diverged"
    yield f"tools: {tally.tools_from_recording:,} answered from the recording, {tally.tools_real:,} really ran"
    for code, count in tally.codes.most_common():
        yield f"  {code}: {count:,}"
    yield from spent(tally)
    if tally.broken:
        yield f"{counted(tally.broken, 'turn')} did not fit the conversation as it went: recorded history was taken"
    for run in directory.results():
        if run.divergence is not None:
            at = counted(run.divergence.index, "step")
            yield f"first divergence: {run.run_id}, after {at}: {run.divergence.what}"
            break


def _incomplete(tally: Tally) -> str:
    advice = "the same command with a larger bound goes on"
    if tally.refused:
        advice = (
            "nothing of them is kept: mend the credentials, the endpoint or the model, and give the same command again"
        )
    elif tally.exhausted == COST_UNKNOWN:
        advice = "give the credentials input_price and output_price, or use --limit or --max-tokens"
    return f"not complete: stopped at {tally.exhausted}; {advice}"
