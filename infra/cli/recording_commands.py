"""`agentstream capture` and `agentstream recording` with their options; they are done in the modules beside this."""

from pathlib import Path
from typing import Annotated

import typer

from agentstream.infra.cli.examples import examples

recording_app = typer.Typer(
    help="Look into recordings, which `agentstream capture` makes.",
    epilog=examples("recording"),
    no_args_is_help=True,
    rich_markup_mode=None,
)
Recording = Annotated[Path, typer.Argument(metavar="DIR", help="The recording's directory.")]
Texts = list[str] | None


def capture(  # noqa: PLR0913, PLR0917  # each is an option
    context: typer.Context,
    directory: Recording,
    since: Annotated[
        str | None, typer.Option("--since", help="Asked since then: 2026-01-31T12:00:00Z, or 90m, 2h, 7d ago.")
    ] = None,
    until: Annotated[str | None, typer.Option("--until", help="Asked before then, in the same form.")] = None,
    session: Annotated[Texts, typer.Option("--session", help="Only this session; may be repeated.")] = None,
    run: Annotated[Texts, typer.Option("--run", help="Only this run; may be repeated.")] = None,
    status: Annotated[
        Texts, typer.Option("--status", help="Only completed, failed, cancelled or unfinished; may be repeated.")
    ] = None,
    code: Annotated[Texts, typer.Option("--code", help="Only failed with this error code; may be repeated.")] = None,
    model: Annotated[Texts, typer.Option("--model", help="Only run with this provider/id; may be repeated.")] = None,
    metadata: Annotated[
        Texts, typer.Option("--metadata", help="Only with key=value in the request's metadata; may be repeated.")
    ] = None,
    sample: Annotated[
        float | None, typer.Option("--sample", min=0.0, max=1.0, help="Only this share of the sessions, such as 0.1.")
    ] = None,
    seed: Annotated[int, typer.Option("--seed", help="Of the sample: the same seed, the same sessions.")] = 0,
    from_offset: Annotated[
        Texts, typer.Option("--from-offset", help="PARTITION:OFFSET of the input; may be repeated.")
    ] = None,
    to_offset: Annotated[
        Texts, typer.Option("--to-offset", help="PARTITION:OFFSET, itself not included; may be repeated.")
    ] = None,
    limit: Annotated[int | None, typer.Option("--limit", min=1, help="So many runs at most, the oldest.")] = None,
    redact_pattern: Annotated[
        Texts, typer.Option("--redact-pattern", help="Regular expression of what must not leave; may be repeated.")
    ] = None,
    redact_path: Annotated[
        Texts, typer.Option("--redact-path", help="JSONPath in a run, such as $..arguments.email; may be repeated.")
    ] = None,
    events: Annotated[bool, typer.Option("--events/--no-events", help="Whether to record events too.")] = True,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with a capture that was interrupted.")] = False,
    force: Annotated[bool, typer.Option("--force", help="Write over what was recorded there before.")] = False,
    import_file: Annotated[
        Path | None, typer.Option("--import", help="No topics: cases of this file, one JSON object a line.")
    ] = None,
    skip_broken: Annotated[bool, typer.Option("--skip-broken", help="Import the lines that are cases.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="The manifest as JSON.")] = False,
) -> None:
    """Record runs from the topics to a directory: to be carried away, looked into, replayed."""
    from agentstream.infra.cli.capturing import Mode, Typed, run_capture, run_import

    typed = Typed(
        since=since,
        until=until,
        sessions=session,
        runs=run,
        statuses=status,
        codes=code,
        models=model,
        metadata=metadata,
        sample=sample,
        seed=seed,
        from_offsets=from_offset,
        to_offsets=to_offset,
        limit=limit,
        patterns=redact_pattern,
        paths=redact_path,
        events=events,
    )
    mode = Mode(resume=resume, force=force, as_json=as_json)
    if import_file is None:
        run_capture(context.obj, directory, typed, mode)
    else:
        run_import(context.obj, import_file, directory, typed, mode, skip_broken=skip_broken)


@recording_app.command("show", epilog=examples("recording show"))
def show_command(
    directory: Recording,
    runs: Annotated[bool, typer.Option("--runs", help="List the runs as well.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="The manifest as JSON; with --runs a line a run.")] = False,
) -> None:
    """Say what is in a recording and what is missing of it, and check that nothing was changed."""
    from agentstream.infra.cli.recordings import show_recording

    show_recording(directory, runs=runs, as_json=as_json)
