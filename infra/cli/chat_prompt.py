"""Where people type in `chat`: lines with editing and history on a terminal, plain lines from a pipe."""

import importlib
import sys
from contextlib import suppress

from agentstream.infra.cli.asking import MOST_BYTES, bounded
from agentstream.infra.cli.exits import USAGE, fail
from agentstream.infra.cli.screen import Screen

_PROMPT = "> "
_MORE = "… "


class Prompt:
    """Asks for what is to be said."""

    def __init__(self, screen: Screen) -> None:
        self._screen = screen
        self.interactive = sys.stdin.isatty()
        """Whether somebody types."""
        if self.interactive:
            with suppress(ImportError):  # some builds of Python have none: then without editing
                importlib.import_module("readline")

    def ask(self) -> str | None:
        """What was typed; a line that ends in a backslash goes on with the next one. None at the end (Ctrl-D).

        Raises KeyboardInterrupt for Ctrl-C.
        """
        said: list[str] = []
        while (line := self._line(_MORE if said else _PROMPT)) is not None:
            if not line.endswith("\\"):
                return "\n".join([*said, line])
            said.append(line[:-1])
        return "\n".join(said) if said else None

    def _line(self, prompt: str) -> str | None:
        if self.interactive and sys.stdout.isatty():
            try:
                return input(prompt)
            except EOFError:
                sys.stdout.write("\n")
                return None
            except UnicodeDecodeError:
                self._screen.note("that was not UTF-8 text", "red")
                return ""
        if self.interactive:
            sys.stderr.write(prompt)
            sys.stderr.flush()
        raw = bounded(sys.stdin.buffer.readline(MOST_BYTES + 1), "a line of stdin")
        try:
            return raw.decode("utf-8-sig").removesuffix("\n").removesuffix("\r") if raw else None
        except UnicodeDecodeError as error:
            return fail(f"stdin is not UTF-8 text (at byte {error.start} of a line)", USAGE)
