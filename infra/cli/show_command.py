"""`agentstream show` and its options; what it does is in `showing.py`."""

from typing import Annotated

import typer


def show(
    context: typer.Context,
    run_id: Annotated[str, typer.Argument(metavar="RUN_ID", help="The run: the id of its request.")],
    last: Annotated[
        int, typer.Option("--last", min=1, help="Look at so many records of each partition of a topic at most.")
    ] = 100_000,
    as_json: Annotated[bool, typer.Option("--json", help="JSON for scripts.")] = False,
) -> None:
    """Show all that the topics hold of a run: request, attempts, events, tool calls, result, and where each lies."""
    from agentstream.infra.cli.showing import run_show

    run_show(context.obj, run_id, last=last, as_json=as_json)
