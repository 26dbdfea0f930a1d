"""`agentstream shadow`: its options. What it does is in `shadowing`."""

from pathlib import Path
from typing import Annotated

import typer

from agentstream.infra.cli import candidate


def shadow(  # noqa: PLR0913, PLR0917  # each is an option
    context: typer.Context,
    out: Annotated[Path, typer.Argument(metavar="DIR", help="Where it goes; one that is there is gone on with.")],
    mode: Annotated[str, typer.Option("--mode", help="hybrid, frozen: what comes from the recording.")] = "hybrid",
    model: candidate.Model = None,
    agents_md: candidate.AgentsMd = None,
    harness: candidate.HarnessKind = None,
    assignments: candidate.Assignments = None,
    on_miss: candidate.OnMiss = "stop",
    real_tools: candidate.RealTools = None,
    sample: Annotated[float, typer.Option("--sample", min=0.0, max=1.0, help="Of the sessions, this share.")] = 1.0,
    seed: Annotated[int, typer.Option("--seed", help="The same seed draws the same sessions.")] = 0,
    group: Annotated[str | None, typer.Option("--group", help="Its consumer group; absent: one of its own.")] = None,
    concurrency: Annotated[int, typer.Option("--concurrency", min=1, max=1_000, help="Runs at once.")] = 4,
    rate: candidate.Rate = None,
    max_runs: Annotated[int | None, typer.Option("--max-runs", min=1, help="End after so many runs.")] = None,
    max_tokens: candidate.MaxTokens = None,
    max_cost: candidate.MaxCost = None,
    for_: Annotated[str | None, typer.Option("--for", help="End after so long: 30s, 10m, 2h.")] = None,
    max_lag: Annotated[
        str, typer.Option("--max-lag", help="Results older than this are passed over, and counted: 30s, 10m, 2h.")
    ] = "1h",
    window: Annotated[int, typer.Option("--window", min=1, max=10_000, help="Pairs that are compared.")] = 200,
    every: Annotated[str, typer.Option("--every", help="Say how it stands so often, if anything is new.")] = "1m",
    evals: Annotated[list[str] | None, typer.Option("--eval", help="An evaluator, as `compare` takes it.")] = None,
    fail_if: Annotated[
        list[str] | None, typer.Option("--fail-if", help="A rule, as `compare` takes it: an alarm while it holds.")
    ] = None,
    publish: Annotated[
        bool, typer.Option("--publish", help="Each outcome to the topic of evaluations, and as spans.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="A JSON object a line.")] = False,
) -> None:
    """Play runs of now again with a candidate, beside production, and compare as they come.

    Ends with Ctrl-C, or a bound. Exit code: 0 passed, 1 a rule failed, 2 could not be judged, or nothing was compared.
    """
    from agentstream.infra.cli.instants import duration
    from agentstream.infra.cli.shadowing import Wanted, run_shadow

    named = candidate.names_in(real_tools)
    wanted = Wanted(
        out=out,
        asked=candidate.changes(model, agents_md, harness, assignments),
        terms={"mode": mode, "on_miss": on_miss, "real_tools": named},
        sample=sample,
        seed=seed,
        group=group,
        budget=candidate.budget(concurrency, rate, max_runs, max_tokens, max_cost),
        seconds=duration("--for", for_),
        max_lag=duration("--max-lag", max_lag) or 0.0,
        window=window,
        every=duration("--every", every) or 0.0,
        specs=tuple(evals or ()),
        rules=tuple(fail_if or ()),
        publish=publish,
    )
    run_shadow(context.obj, wanted, as_json=as_json)
