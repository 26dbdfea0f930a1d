"""Deltas of many runs on one terminal, legibly: one run is written word by word, the others line by line."""

from collections import OrderedDict
from typing import Final

from agentstream.consumers.client import Voided
from agentstream.infra.cli.screen import Screen, styled
from agentstream.infra.cli.tail_feed import Seen
from agentstream.infra.cli.tail_lines import clock, event_text, name
from agentstream.infra.rendering import LiveRun
from agentstream.schemas.events import PartEnded, ReadEvent, RunEnded, RunStarted, StreamEvents

MAX_RUNS: Final = 1_000
"""Runs whose beginnings of lines are kept; whichever was silent longest goes first."""
WIDTH: Final = 100
"""Characters after which a line of a run that stands behind is shown, although it has not ended."""
_COLOURS: Final = ("cyan", "green", "yellow", "bold")


class Streams:
    """Writes what deltas say. Close it with `end`, which ends the line that is open."""

    def __init__(self, screen: Screen) -> None:
        self._screen = screen
        self._runs: OrderedDict[str, _Run] = OrderedDict()
        self._front: _Run | None = None
        self._in_line = False
        self._begun = 0

    def show(self, seen: Seen) -> None:
        """One record of deltas."""
        assert isinstance(seen.value, StreamEvents)
        run = self._run(seen.value.run_id)
        if seen.voided:
            run.held = ""
            run.live.show(Voided())
        if seen.gap and not isinstance(seen.value.events[0], RunStarted):
            self.line(run, styled("[…]", "dim"))
        for event in seen.value.events:
            self._show(run, event, seen)

    def end(self) -> None:
        """Show what is held, and end the line."""
        for run in self._runs.values():
            self._flush(run)
        self._break()

    def piece(self, run: "_Run", text: str) -> None:
        """Words of a run: at once if no other is being written, else line by line."""
        if self._front is None:
            self._front, text, run.held = run, run.held + text, ""
        if self._front is run:
            self._write(run, text)
            return
        run.held += text
        while "\n" in run.held or len(run.held) > WIDTH:
            self._show_held(run)

    def line(self, run: "_Run", text: str) -> None:
        """A line of a run."""
        self._flush(run)
        self._break()
        self._screen.out(f"{run.label} {text}")

    def _run(self, run_id: str) -> "_Run":
        run = self._runs.get(run_id)
        if run is None:
            run = self._runs[run_id] = _Run(self, run_id, _COLOURS[self._begun % len(_COLOURS)])
            self._begun += 1
        self._runs.move_to_end(run_id)
        if len(self._runs) > MAX_RUNS:
            self._forget(next(iter(self._runs)))
        return run

    def _forget(self, run_id: str) -> None:
        run = self._runs.pop(run_id)
        self._flush(run)
        self._release(run)

    def _show(self, run: "_Run", event: ReadEvent, seen: Seen) -> None:
        match event:
            case RunStarted():
                when = clock(seen.record.timestamp_ms)
                told = f"▸ run {name(seen.run_id)} · session {name(seen.session_id)} · {event_text(event)}"
                self.line(run, styled(f"{told} · {when}", "dim"))
            case RunEnded():
                run.live.end_text()
                self.line(run, styled(f"■ {event_text(event)}", "green" if event.status == "completed" else "red"))
                self._forget(run.run_id)
            case PartEnded(part_type="text"):
                run.live.end_text()
                self._flush(run)
                self._release(run)
            case _:
                run.live.show(event)

    def _release(self, run: "_Run") -> None:
        if self._front is run:
            self._break()
            self._front = None

    def _flush(self, run: "_Run") -> None:
        while run.held:
            self._show_held(run)

    def _show_held(self, run: "_Run") -> None:
        """A whole line of what is held, or as much as fits on one, up to a space if there is any."""
        head, newline, rest = run.held.partition("\n")
        if len(head) > WIDTH:
            space = head.rfind(" ", 1, WIDTH)
            cut = space + 1 if space > 0 else WIDTH
            head, rest = head[:cut], head[cut:] + newline + rest
        run.held = rest
        self._break()
        self._screen.out(f"{run.label} {head}")

    def _write(self, run: "_Run", text: str) -> None:
        lines = text.split("\n")
        for number, words in enumerate(lines):
            if words:
                self._screen.piece(words if self._in_line else f"{run.label} {words}")
                self._in_line = True
            if number < len(lines) - 1:
                self._break()

    def _break(self) -> None:
        if self._in_line:
            self._in_line = False
            self._screen.piece("\n")


class _Run:
    def __init__(self, streams: Streams, run_id: str, colour: str) -> None:
        self.run_id = run_id
        # The end of it: run ids that were made at the same time begin with the same digits.
        self.label = styled(f"{name(run_id)[-6:]} │", colour)
        self.held = ""
        self.live = LiveRun(
            piece=lambda text: streams.piece(self, text), line=lambda text: streams.line(self, styled(text, "dim"))
        )
