"""`agentstream replay`: its options. What it does is in `replaying`."""

from pathlib import Path
from typing import Annotated

import typer

from agentstream.infra.cli import candidate


def replay(  # noqa: PLR0913, PLR0917  # each is an option
    context: typer.Context,
    recording: Annotated[
        str,
        typer.Argument(
            metavar="RECORDING|SELECTION",
            help="A directory that `capture` made; or what to record first, such as 'since=1d status=failed'.",
        ),
    ],
    out: Annotated[Path, typer.Option("--out", help="Where the replay goes; one that is there is gone on with.")],
    mode: Annotated[str, typer.Option("--mode", help="live, frozen, hybrid: what comes from the recording.")] = "live",
    model: candidate.Model = None,
    agents_md: candidate.AgentsMd = None,
    harness: candidate.HarnessKind = None,
    assignments: candidate.Assignments = None,
    repeat: Annotated[int, typer.Option("--repeat", min=1, max=1_000, help="Play each run so often.")] = 1,
    baseline_repeats: Annotated[
        int | None,
        typer.Option(
            "--baseline-repeats",
            min=2,
            max=1_000,
            help="Play each run so often without the changes as well: what differs between those is noise.",
        ),
    ] = None,
    history: Annotated[
        str, typer.Option("--history", help="recorded, relived: what later turns of a session are asked with.")
    ] = "recorded",
    on_miss: candidate.OnMiss = "stop",
    real_tools: candidate.RealTools = None,
    concurrency: Annotated[int, typer.Option("--concurrency", min=1, max=10_000, help="Runs at once.")] = 4,
    rate: candidate.Rate = None,
    limit: Annotated[
        int | None, typer.Option("--limit", "--max-runs", min=1, help="Start no more after so many runs.")
    ] = None,
    max_tokens: candidate.MaxTokens = None,
    max_cost: candidate.MaxCost = None,
    via: Annotated[str, typer.Option("--via", help="process, kafka: where the runs happen.")] = "process",
    own_worker: Annotated[
        bool, typer.Option("--worker/--no-worker", help="--via kafka: start a worker here, or leave it to others.")
    ] = True,
    partitions: Annotated[int, typer.Option("--partitions", min=1, help="--via kafka: partitions of its topics.")] = 4,
    restart: Annotated[bool, typer.Option("--restart", help="Forget what was played before.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="JSON for scripts.")] = False,
) -> None:
    """Play recorded runs again under other parameters. Runs that are finished are not played again."""
    from agentstream.infra.cli.exits import USAGE, fail
    from agentstream.infra.cli.replaying import Wanted, run_replay

    if via not in ("process", "kafka"):
        fail(f"--via {via}: there are process and kafka", USAGE)
    named = candidate.names_in(real_tools)
    wanted = Wanted(
        recording=recording,
        out=out,
        asked=candidate.changes(model, agents_md, harness, assignments),
        terms={"mode": mode, "repeats": repeat, "history": history, "on_miss": on_miss, "real_tools": named},
        budget=candidate.budget(concurrency, rate, limit, max_tokens, max_cost),
        baseline_repeats=baseline_repeats,
        kafka=via == "kafka",
        own_worker=own_worker,
        partitions=partitions,
        restart=restart,
    )
    if via != "kafka" and not own_worker:
        fail("--no-worker leaves a replay to the workers of a cluster: it needs --via kafka", USAGE)
    run_replay(context.obj, wanted, as_json=as_json)
