"""`agentstream replay`: its options. What it does is in `replaying`."""

from pathlib import Path
from typing import Annotated

import typer


def replay(  # noqa: PLR0913, PLR0917  # each is an option
    context: typer.Context,
    recording: Annotated[Path, typer.Argument(help="The recording: a directory that `capture` made.")],
    out: Annotated[Path, typer.Option("--out", help="Where the replay goes; one that is there is gone on with.")],
    mode: Annotated[str, typer.Option("--mode", help="live, frozen, hybrid: what comes from the recording.")] = "live",
    model: Annotated[str | None, typer.Option("--model", help="provider/id")] = None,
    agents_md: Annotated[
        Path | None, typer.Option("--agents-md", help="File with instructions.", exists=True, dir_okay=False)
    ] = None,
    harness: Annotated[str | None, typer.Option("--harness", help="pi, scripted, …")] = None,
    assignments: Annotated[list[str] | None, typer.Option("--set", help="A parameter, as `invoke` takes it.")] = None,
    repeat: Annotated[int, typer.Option("--repeat", min=1, max=1_000, help="Play each run so often.")] = 1,
    history: Annotated[
        str, typer.Option("--history", help="recorded, relived: what later turns of a session are asked with.")
    ] = "recorded",
    on_miss: Annotated[
        str, typer.Option("--on-miss", help="stop, error, real: hybrid, a tool call that was not recorded.")
    ] = "stop",
    real_tools: Annotated[
        str | None, typer.Option("--real-tools", help="Tools that may really run on a miss, such as read,grep.")
    ] = None,
    concurrency: Annotated[int, typer.Option("--concurrency", min=1, max=10_000, help="Runs at once.")] = 4,
    rate: Annotated[float | None, typer.Option("--rate", min=0.001, help="Runs started a second at most.")] = None,
    max_runs: Annotated[int | None, typer.Option("--max-runs", min=1, help="Start no more after so many runs.")] = None,
    max_tokens: Annotated[int | None, typer.Option("--max-tokens", min=1, help="… after so many tokens.")] = None,
    max_cost: Annotated[
        float | None, typer.Option("--max-cost", min=0, help="… after so much money, in the currency of the costs.")
    ] = None,
    via: Annotated[str, typer.Option("--via", help="process, kafka: where the runs happen.")] = "process",
    own_worker: Annotated[
        bool, typer.Option("--worker/--no-worker", help="--via kafka: start a worker here, or leave it to others.")
    ] = True,
    partitions: Annotated[int, typer.Option("--partitions", min=1, help="--via kafka: partitions of its topics.")] = 4,
    restart: Annotated[bool, typer.Option("--restart", help="Forget what was played before.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="JSON for scripts.")] = False,
) -> None:
    """Play recorded runs again under other parameters. Runs that are finished are not played again."""
    from decimal import Decimal

    from agentstream.consumers.replay.playing.budget import Budget
    from agentstream.infra.cli.exits import USAGE, fail
    from agentstream.infra.cli.invoking import Asked
    from agentstream.infra.cli.replaying import Wanted, run_replay

    if via not in ("process", "kafka"):
        fail(f"--via {via}: there are process and kafka", USAGE)
    named = tuple(name.strip() for name in (real_tools or "").split(",") if name.strip())
    wanted = Wanted(
        recording=recording,
        out=out,
        asked=Asked(
            text="",
            session=None,
            model=model,
            agents_md=agents_md,
            harness=harness,
            assignments=tuple(assignments or ()),
        ),
        terms={"mode": mode, "repeats": repeat, "history": history, "on_miss": on_miss, "real_tools": named},
        budget=Budget(
            concurrency=concurrency,
            rate=rate,
            max_runs=max_runs,
            max_tokens=max_tokens,
            max_cost=None if max_cost is None else Decimal(str(max_cost)),
        ),
        kafka=via == "kafka",
        own_worker=own_worker,
        partitions=partitions,
        restart=restart,
    )
    if via != "kafka" and not own_worker:
        fail("--no-worker leaves a replay to the workers of a cluster: it needs --via kafka", USAGE)
    run_replay(context.obj, wanted, as_json=as_json)
