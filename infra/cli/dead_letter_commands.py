"""`agentstream dead-letters` and its options; what it does is in `dead_letters.py`."""

from pathlib import Path
from typing import Annotated

import typer

from agentstream.infra.cli.dead_letter_filters import Asked, filtered
from agentstream.infra.cli.examples import examples

dead_letters_app = typer.Typer(
    help="List, show, export and send again what could not be done.",
    epilog=examples("dead-letters"),
    no_args_is_help=True,
    rich_markup_mode=None,
)

Most = Annotated[int | None, typer.Option("--max", min=1, help="So many at most, the oldest.")]
AsJson = Annotated[bool, typer.Option("--json", help="JSON for scripts, one object a line.")]


@dead_letters_app.command("list", epilog=examples("dead-letters list"))
@filtered
def list_command(
    context: typer.Context,
    asked: Asked,
    most: Most = None,
    as_json: AsJson = False,
) -> None:
    """List dead letters, oldest first."""
    from agentstream.infra.cli.dead_letters import list_letters

    list_letters(context.obj, asked, most=most, as_json=as_json)


@dead_letters_app.command(epilog=examples("dead-letters show"))
def show(
    context: typer.Context,
    position: Annotated[str, typer.Argument(metavar="PARTITION/OFFSET", help="As `list` shows it, such as 3/17.")],
    as_json: AsJson = False,
) -> None:
    """Show one dead letter whole: why, and the record as it was."""
    from agentstream.infra.cli.dead_letters import show_letter

    show_letter(context.obj, position, as_json=as_json)


@dead_letters_app.command(epilog=examples("dead-letters export"))
@filtered
def export(
    context: typer.Context,
    asked: Asked,
    most: Most = None,
    output: Annotated[Path | None, typer.Option("--output", help="File to write; absent: stdout.")] = None,
) -> None:
    """Write dead letters as JSON Lines, with key, value and headers."""
    from agentstream.infra.cli.dead_letters import export_letters

    export_letters(context.obj, asked, most=most, output=output)


@dead_letters_app.command(epilog=examples("dead-letters redrive"))
@filtered
def redrive(  # noqa: PLR0913, PLR0917  # each is an option
    context: typer.Context,
    asked: Asked,
    most: Most = None,
    to: Annotated[str | None, typer.Option("--to", help="Topic to send to; absent: that of the requests.")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would be sent, and send nothing.")] = False,
    max_redrives: Annotated[
        int, typer.Option("--max-redrives", min=1, max=999_999, help="Refuse what was sent again so often already.")
    ] = 3,
    name: Annotated[
        str | None,
        typer.Option("--name", help="Name of the progress; absent: made of the filters. Another one begins anew."),
    ] = None,
    batch: Annotated[int, typer.Option("--batch", min=1, max=1_000, help="Dead letters per transaction.")] = 100,
    as_json: AsJson = False,
) -> None:
    """Send dead letters again as new requests, each once. Killed in the middle, run it again: it goes on there."""
    from agentstream.infra.cli.redriving import Wanted, run_redrive

    wanted = Wanted(to=to, most=most, dry_run=dry_run, max_redrives=max_redrives, name=name, batch=batch)
    run_redrive(context.obj, asked, wanted, as_json=as_json)
