"""What `replay` and `shadow` are told of a candidate: its options, and what becomes of them."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from agentstream.consumers.replay.playing.budget import Budget
    from agentstream.infra.cli.asking import Asked

Model = Annotated[str | None, typer.Option("--model", help="provider/id")]
AgentsMd = Annotated[
    Path | None, typer.Option("--agents-md", help="File with instructions.", exists=True, dir_okay=False)
]
HarnessKind = Annotated[str | None, typer.Option("--harness", help="pi, scripted, …")]
Assignments = Annotated[list[str] | None, typer.Option("--set", help="A parameter, as `invoke` takes it.")]
OnMiss = Annotated[str, typer.Option("--on-miss", help="stop, error, real: hybrid, a tool call that was not recorded.")]
RealTools = Annotated[
    str | None,
    typer.Option(
        "--real-tools",
        help="Tools that may really run, such as bash: on a miss, and in a live replay what does more than read.",
    ),
]
Rate = Annotated[float | None, typer.Option("--rate", min=0.001, help="Runs started a second at most.")]
MaxTokens = Annotated[int | None, typer.Option("--max-tokens", min=1, help="… after so many tokens.")]
MaxCost = Annotated[
    float | None, typer.Option("--max-cost", min=0, help="… after so much money, in the currency of the costs.")
]


def changes(model: str | None, agents_md: Path | None, harness: str | None, assignments: list[str] | None) -> "Asked":
    """What is different from what was recorded, as `invoke` takes it."""
    from agentstream.infra.cli.asking import Asked

    return Asked(
        text="",
        session=None,
        model=model,
        agents_md=agents_md,
        harness=harness,
        assignments=tuple(assignments or ()),
    )


def names_in(text: str | None) -> tuple[str, ...]:
    """Names that are separated by commas."""
    return tuple(name.strip() for name in (text or "").split(",") if name.strip())


def budget(
    concurrency: int, rate: float | None, max_runs: int | None, max_tokens: int | None, max_cost: float | None
) -> "Budget":
    """The bounds."""
    from decimal import Decimal

    from agentstream.consumers.replay.playing.budget import Budget

    return Budget(
        concurrency=concurrency,
        rate=rate,
        max_runs=max_runs,
        max_tokens=max_tokens,
        max_cost=None if max_cost is None else Decimal(str(max_cost)),
    )
