"""`agentstream tail` and its options; what it does is in `tailing.py`."""

from typing import Annotated, Literal

import typer

What = Literal["results", "deltas", "requests", "dead-letters"]


def tail(  # noqa: PLR0913, PLR0917  # each is an option
    context: typer.Context,
    what: Annotated[
        What, typer.Argument(metavar="WHAT", help="results, deltas, requests or dead-letters.")
    ] = "results",
    session: Annotated[
        str | None, typer.Option("--session", help="Only this session; only its partition is read.")
    ] = None,
    run: Annotated[str | None, typer.Option("--run", help="Only this run; ends when it has ended.")] = None,
    status: Annotated[
        Literal["completed", "failed", "cancelled"] | None, typer.Option("--status", help="Only results with this one.")
    ] = None,
    since: Annotated[
        str | None,
        typer.Option("--since", "--from", help="Only since then: 2026-01-31T12:00:00Z, or 90m, 2h, 7d ago."),
    ] = None,
    partition: Annotated[
        int | None, typer.Option("--partition", min=0, help="Only this one, wherever a session should lie.")
    ] = None,
    last: Annotated[
        int | None,
        typer.Option(
            "-n", "--last", min=0, max=10_000, help="So many of those that are there: 10; all with --since or --run."
        ),
    ] = None,
    most: Annotated[int | None, typer.Option("--max", min=1, help="End after so many.")] = None,
    follow: Annotated[
        bool, typer.Option("--follow/--no-follow", "-f/-F", help="Go on with what comes, or end with what is there.")
    ] = True,
    as_json: Annotated[bool, typer.Option("--json", help="JSON for scripts, one object a line.")] = False,
) -> None:
    """Show the last results, deltas, requests or dead letters, then what comes, until Ctrl-C.

    Deltas by the reader's rule: of a run only the attempt that counts; when another takes its place, that is said.
    """
    from agentstream.infra.cli.tailing import Asked, run_tail

    asked = Asked(
        what=what,
        session=session,
        run=run,
        status=status,
        since=since,
        partition=partition,
        last=last,
        most=most,
        follow=follow,
        as_json=as_json,
    )
    run_tail(context.obj, asked)
