"""`agentstream init` and its options; what it does is in `initialising.py`."""

from pathlib import Path
from typing import Annotated

import typer


def init(
    directory: Annotated[Path, typer.Argument(metavar="DIR", help="Where to; made if it is not there.")] = Path(),
    force: Annotated[bool, typer.Option("--force", help="Write over files that are there already.")] = False,
) -> None:
    """Begin an agent: write AGENTS.md, agent.json and compose.yaml, with comments, and say what to do next."""
    from agentstream.infra.cli.initialising import run_init

    run_init(directory, force=force)
