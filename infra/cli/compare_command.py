"""`agentstream compare`: its options. What it does is in `comparing`."""

from pathlib import Path
from typing import Annotated

import typer


def compare(  # noqa: PLR0913, PLR0917  # each is an option
    context: typer.Context,
    replay: Annotated[Path, typer.Argument(metavar="REPLAY", help="The replay to judge: a directory of `replay`.")],
    recording: Annotated[
        Path | None,
        typer.Option("--recording", help="The recording that it is of; absent: the one that the replay itself made."),
    ] = None,
    baseline: Annotated[
        str, typer.Option("--baseline", help="recording, or the directory of another replay of it.")
    ] = "recording",
    baseline_repeats: Annotated[
        int | None,
        typer.Option(
            "--baseline-repeats",
            min=2,
            max=1_000,
            help="Compare with so many plays of the baseline, made by `replay --baseline-repeats` or named by "
            "--baseline, and show their noise.",
        ),
    ] = None,
    evals: Annotated[
        list[str] | None,
        typer.Option(
            "--eval",
            help="exact · contains:TEXT · regex:RE · json-schema:FILE · numeric:tolerance=0.01 · tools · finish_reason "
            "· latency · tokens · cost · errors · module:function · judge:QUESTION; name=… before it names it.",
        ),
    ] = None,
    evaluators: Annotated[
        Path | None, typer.Option("--evaluators", help="TOML file with `evaluators` and `fail_if`.", dir_okay=False)
    ] = None,
    fail_if: Annotated[
        list[str] | None,
        typer.Option("--fail-if", help="pass_rate(exact) < baseline - 0.02 at 95% · errors > 5%"),
    ] = None,
    max_left_out: Annotated[
        float, typer.Option("--max-left-out", min=0.0, max=1.0, help="Of the cases, how many a rule may lack.")
    ] = 0.1,
    judge_model: Annotated[
        str | None, typer.Option("--judge-model", help="For judge:…, as pydantic-ai names it: openai:gpt-5-mini.")
    ] = None,
    seed: Annotated[int, typer.Option("--seed", help="Of every resampling.")] = 20_260_101,
    out: Annotated[
        Path | None, typer.Option("--out", help="Directory for evidence.jsonl, report.html, junit.xml, report.json.")
    ] = None,
    jsonl: Annotated[Path | None, typer.Option("--jsonl", help="The evidence, to this file.")] = None,
    html: Annotated[Path | None, typer.Option("--html", help="The page, to this file.")] = None,
    junit: Annotated[Path | None, typer.Option("--junit", help="JUnit XML, to this file.")] = None,
    publish: Annotated[
        bool, typer.Option("--publish", help="Outcomes to the topic of evaluations, and as spans where OTEL_* says so.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="JSON for scripts.")] = False,
) -> None:
    """Say what a replay does better and worse, and whether it may pass.

    Exit code 0 passed, 1 failed, 2 could not be judged.
    """
    from agentstream.consumers.replay.playing.directory import RECORDING
    from agentstream.infra.cli.comparing import Outputs, Wanted, run_compare
    from agentstream.infra.cli.exits import USAGE, fail

    if recording is None and not (replay / RECORDING).exists():
        fail("--recording is missing: this replay made none itself, so say which one it is of", USAGE)
    wanted = Wanted(
        recording=recording or replay / RECORDING,
        replay=replay,
        baseline=baseline,
        baseline_repeats=baseline_repeats,
        specs=tuple(evals or ()),
        evaluator_file=evaluators,
        rules=tuple(fail_if or ()),
        max_left_out=max_left_out,
        judge_model=judge_model,
        seed=seed,
        outputs=Outputs(directory=out, jsonl=jsonl, html=html, junit=junit, publish=publish),
    )
    run_compare(context.obj, wanted, as_json=as_json)
