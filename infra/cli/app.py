"""The commands and their options; what they do is in the modules beside this one."""

from pathlib import Path
from typing import Annotated

import typer

from agentstream.infra.cli.compare_command import compare
from agentstream.infra.cli.context import Context
from agentstream.infra.cli.dead_letter_commands import dead_letters_app
from agentstream.infra.cli.examples import InOrder, examples
from agentstream.infra.cli.init_command import init
from agentstream.infra.cli.invoke_command import chat, invoke
from agentstream.infra.cli.recording_commands import capture, recording_app
from agentstream.infra.cli.replay_command import replay
from agentstream.infra.cli.shadow_command import shadow
from agentstream.infra.cli.show_command import show
from agentstream.infra.cli.sidecar_command import sidecar
from agentstream.infra.cli.tail_command import tail

app = typer.Typer(
    name="agentstream",
    cls=InOrder,
    help="Run AI agents from Kafka: requests in, live deltas and exactly one result per request out.",
    epilog=examples(""),
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)
topics_app = typer.Typer(
    help="Show or make what the topics should be.",
    epilog=examples("topics"),
    no_args_is_help=True,
    rich_markup_mode=None,
)
app.add_typer(topics_app, name="topics")
app.add_typer(dead_letters_app, name="dead-letters")
app.add_typer(recording_app, name="recording")
app.command(epilog=examples("invoke"))(invoke)
app.command(epilog=examples("chat"))(chat)
app.command(epilog=examples("capture"))(capture)
app.command(epilog=examples("replay"))(replay)
app.command(epilog=examples("compare"))(compare)
app.command(epilog=examples("shadow"))(shadow)
app.command(epilog=examples("sidecar"))(sidecar)
app.command(epilog=examples("init"))(init)
app.command(epilog=examples("show"))(show)
app.command(epilog=examples("tail"))(tail)

AsJson = Annotated[bool, typer.Option("--json", help="JSON for scripts.")]
Partitions = Annotated[int | None, typer.Option("--partitions", min=1, max=10_000, help="Partitions of every topic.")]


def _version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        typer.echo(version("agentstream-kafka"))
        raise typer.Exit


@app.callback()
def options(
    context: typer.Context,
    config: Annotated[
        Path | None, typer.Option("--config", help="Settings file; AGENTSTREAM_CONFIG, else ./agentstream.toml.")
    ] = None,
    debug: Annotated[bool, typer.Option("--debug", help="Show where an error arose, and log everything.")] = False,
    version: Annotated[bool, typer.Option("--version", callback=_version, is_eager=True, help="Show it.")] = False,
) -> None:
    """Run AI agents from Kafka: requests in, live deltas and exactly one result per request out."""
    context.obj = Context(config=config, debug=debug)


@app.command(epilog=examples("dev"))
def dev(
    context: typer.Context,
    tools: Annotated[
        str | None, typer.Option("--tools", help="Tools that requests may ask for, such as bash,read.")
    ] = None,
    partitions: Partitions = None,
    port: Annotated[
        int | None, typer.Option("--port", min=1, max=65_535, help="Kafka's port; 9092 if it is free, else any.")
    ] = None,
) -> None:
    """Start a broker, the topics and a worker, until Ctrl-C. Needs no settings, no keys."""
    from agentstream.infra.cli.serving import run_dev

    run_dev(context.obj, tools=tools, partitions=partitions, port=port)


@app.command(epilog=examples("worker"))
def worker(
    context: typer.Context,
    stop_at_eof: Annotated[
        bool, typer.Option("--stop-at-eof", help="Stop when stdin ends: whoever holds the other end is gone.")
    ] = False,
) -> None:
    """Take requests and run them, until SIGTERM or Ctrl-C."""
    from agentstream.infra.cli.serving import run_worker_command

    run_worker_command(context.obj, stop_at_eof=stop_at_eof)


RunId = Annotated[str, typer.Argument(metavar="RUN_ID", help="The run: the id of its request.")]


@app.command(epilog=examples("cancel"))
def cancel(
    context: typer.Context,
    run_id: RunId,
    reason: Annotated[str | None, typer.Option("--reason", help="Why; it stands in the result.")] = None,
    wait: Annotated[bool, typer.Option("--wait", help="Wait for the result, and show how the run ended.")] = False,
    timeout: Annotated[float, typer.Option("--timeout", min=0.1, help="Seconds to wait for the result.")] = 60.0,
    as_json: AsJson = False,
) -> None:
    """End a run as cancelled, whether it runs, waits, or is still to be sent. One that has ended is not changed.

    Says where the run is. Exit code 1 if it has ended, and not as cancelled, or is not on the log.
    """
    from agentstream.infra.cli.cancelling import Wanted, run_cancel

    wanted = Wanted(run_id=run_id, reason=reason, wait_s=timeout if wait else None, as_json=as_json)
    run_cancel(context.obj, wanted)


@app.command(epilog=examples("where"))
def where(
    context: typer.Context,
    run_id: RunId,
    last: Annotated[
        int, typer.Option("--last", min=1, help="Look at so many records of each partition of a topic at most.")
    ] = 100_000,
    as_json: AsJson = False,
) -> None:
    """Say where a run is: waiting behind which, running under which claim, or where its result lies."""
    from agentstream.infra.cli.locating import run_where

    run_where(context.obj, run_id, last=last, as_json=as_json)


@app.command(epilog=examples("trace"))
def trace(
    context: typer.Context,
    wanted: Annotated[
        str, typer.Argument(metavar="RUN_ID|TRACE_ID", help="A run, or a trace by its first eight digits or more.")
    ],
    directory: Annotated[
        Path | None,
        typer.Option("--dir", help="Where spans are kept; AGENTSTREAM_TRACE_DIR, else that of `agentstream dev`."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="The spans, one JSON object a line.")] = False,
) -> None:
    """Draw what happened to a run, from the request to each model call and tool, with timings."""
    from agentstream.infra.cli.tracing import run_trace

    run_trace(context.obj, wanted, directory=directory, as_json=as_json)


@topics_app.command("plan", epilog=examples("topics plan"))
def topics_plan(context: typer.Context, partitions: Partitions = None, as_json: AsJson = False) -> None:
    """Show what `apply` would do."""
    from agentstream.infra.cli.topics import show_plan

    show_plan(context.obj, partitions=partitions, as_json=as_json)


@topics_app.command("apply", epilog=examples("topics apply"))
def topics_apply(
    context: typer.Context,
    partitions: Partitions = None,
    yes: Annotated[
        bool, typer.Option("--yes", help="Grow the input although that breaks the sessions' order.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Create what is missing, grow what is too small, set what differs. Safe to repeat."""
    from agentstream.infra.cli.topics import apply_plan

    apply_plan(context.obj, partitions=partitions, yes=yes, as_json=as_json)


@app.command("inspect", epilog=examples("inspect"))
def inspect_command(
    context: typer.Context,
    as_json: AsJson = False,
    asyncapi: Annotated[bool, typer.Option("--asyncapi", help="The whole interface as AsyncAPI 3.1.")] = False,
) -> None:
    """Show the agent's interface: topics, and what takes effect where a request says nothing."""
    from agentstream.infra.cli.inspecting import show_interface

    show_interface(context.obj, as_json=as_json, asyncapi=asyncapi)


@app.command(epilog=examples("doctor"))
def doctor(context: typer.Context, as_json: AsJson = False) -> None:
    """Check broker, topics, harness, Node, Pi, credentials and files, and say what to do."""
    from agentstream.infra.cli.diagnosing import run_doctor

    run_doctor(context.obj, as_json=as_json)
