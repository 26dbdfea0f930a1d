"""`agentstream init`."""

import os
import shlex
from pathlib import Path

from agentstream.consumers.agent_files import MAX_NAME
from agentstream.infra.cli.exits import USAGE, fail
from agentstream.infra.cli.init_files import COMPOSE, new_files
from agentstream.infra.cli.screen import Screen
from agentstream.infra.cli.whole_file import whole_file


def run_init(directory: Path, *, force: bool) -> None:
    """Write the files and say what to do next. Nothing is written where one of them is there already."""
    files = new_files(_name(directory))
    try:
        directory.mkdir(parents=True, exist_ok=True)
        there = [str(directory / name) for name in files if os.path.lexists(directory / name)]
        if there and not force:
            fail(f"{', '.join(there)}: there already; --force writes over it, or name another DIR", USAGE)
        for name, text in files.items():
            with whole_file(directory / name) as file:
                file.write(text)
    except OSError as error:
        fail(f"{error.filename or directory}: cannot be written ({error.strerror})", USAGE)
    screen = Screen()
    for name, what in zip(files, ("its instructions", "its parameters", "Kafka and a worker for it"), strict=True):
        screen.out(f"wrote {directory / name}\t{what}")
    _say_next(directory, screen)


def _say_next(directory: Path, screen: Screen) -> None:
    where = shlex.quote(str(directory))
    screen.out("")
    screen.out("Next, all of it on this machine, without keys:")
    screen.out(f"  AGENTSTREAM_AGENT_DIR={where} agentstream dev")
    screen.out("  agentstream invoke 'Hello, who are you?'    # in another terminal")
    screen.out("or in containers, with OPENAI_API_KEY or ANTHROPIC_API_KEY and AGENTSTREAM_MODEL set:")
    screen.out(f"  docker compose -f {shlex.quote(str(directory / COMPOSE))} up --build")


def _name(directory: Path) -> str:
    """The directory's own, as far as a name may have it."""
    name = "".join(letter for letter in directory.resolve().name if letter.isprintable())
    return name[:MAX_NAME] or "agent"
