"""`agentstream invoke` and `agentstream chat`: their options. What they do is in `invoking`, `batch` and `chatting`."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

if TYPE_CHECKING:
    from agentstream.infra.cli.asking import Asked

Session = Annotated[str | None, typer.Option("--session", help="Session: its runs happen in order.")]
Continue = Annotated[
    str | None, typer.Option("--continue", metavar="SESSION", help="Go on with a session: ask with its history.")
]
Gaps = Annotated[
    bool, typer.Option("--accept-gaps", help="Continue a session although retention has taken turns of it.")
]
Model = Annotated[str | None, typer.Option("--model", help="provider/id")]
AgentsMd = Annotated[
    Path | None, typer.Option("--agents-md", help="File with instructions.", exists=True, dir_okay=False)
]
HarnessKind = Annotated[str | None, typer.Option("--harness", help="pi, scripted, …")]
Assignments = Annotated[
    list[str] | None,
    typer.Option("--set", help="A parameter: tools=bash,read · limits.max_turns=3 · harness.options.text=hi"),
]
Timeout = Annotated[float, typer.Option("--timeout", min=0.1, help="Seconds to wait for a result.")]


def invoke(  # noqa: PLR0913, PLR0917  # each is an option
    context: typer.Context,
    text: Annotated[
        str | None, typer.Argument(metavar="MESSAGE", help="What to ask; - or nothing reads it from stdin.")
    ] = None,
    session: Session = None,
    continued: Continue = None,
    accept_gaps: Gaps = False,
    model: Model = None,
    agents_md: AgentsMd = None,
    harness: HarnessKind = None,
    assignments: Assignments = None,
    wait: Annotated[bool, typer.Option("--wait/--no-wait", help="Wait for the result, or print where it lies.")] = True,
    timeout: Timeout = 600.0,
    as_json: Annotated[bool, typer.Option("--json", help="JSON for scripts.")] = False,
    file: Annotated[
        str | None, typer.Option("--file", metavar="FILE", help="Ask each line of a JSON Lines file; - reads stdin.")
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option("--output", dir_okay=False, help="--file: results go here; started again, only what is missing."),
    ] = None,
    concurrency: Annotated[int, typer.Option("--concurrency", min=1, max=10_000, help="--file: runs at once.")] = 16,
    round_name: Annotated[
        str, typer.Option("--round", help="--file: another name asks anew what was asked before.")
    ] = "",
    on_interrupt: Annotated[
        Literal["leave", "cancel"], typer.Option("--on-interrupt", help="--file, Ctrl-C: what becomes of runs.")
    ] = "leave",
) -> None:
    """Ask the agent and watch it answer: the text on stdout, all else on stderr.

    A line of --file is {"message": "hi"}, or {"messages": […]}, with session, model, parameters, metadata, run_id,
    deadline or ttl_ms as it needs them; what it does not say is as the options say. Its results are JSON Lines in the
    order in which runs end: {"line": 1, "text": …, "result": {…}}.
    """
    from agentstream.infra.cli.exits import USAGE, fail

    asked = _asked(text or "", session, continued, model, agents_md, harness, assignments)
    if file is not None:
        from agentstream.infra.cli.batch import Batch, run_batch

        if text is not None or continued is not None or not wait:
            fail("--file takes no message, no --continue and no --no-wait", USAGE)
        batch = Batch(
            source=file,
            output=output,
            concurrency=concurrency,
            timeout=timeout,
            round_name=round_name,
            cancel_on_interrupt=on_interrupt == "cancel",
        )
        run_batch(context.obj, asked, batch)
        return
    if output is not None or round_name:
        fail("--output and --round go with --file", USAGE)
    from agentstream.infra.cli.invoking import Manner, run_invoke

    manner = Manner(wait=wait, timeout=timeout, as_json=as_json, accept_gaps=accept_gaps)
    run_invoke(context.obj, asked, manner)


def chat(  # noqa: PLR0913, PLR0917  # each is an option
    context: typer.Context,
    session: Session = None,
    continued: Continue = None,
    accept_gaps: Gaps = False,
    model: Model = None,
    agents_md: AgentsMd = None,
    harness: HarnessKind = None,
    assignments: Assignments = None,
    timeout: Timeout = 600.0,
) -> None:
    """Talk with the agent: it is told what was said before. Ctrl-C stops an answer, Ctrl-D leaves, /help says more.

    From a pipe each line is said, and answered before the next one is.
    """
    from agentstream.infra.cli.chatting import ChatManner, run_chat

    asked = _asked("", session, continued, model, agents_md, harness, assignments)
    run_chat(context.obj, asked, ChatManner(timeout=timeout, accept_gaps=accept_gaps))


def _asked(  # noqa: PLR0913, PLR0917  # each is an option
    text: str,
    session: str | None,
    continued: str | None,
    model: str | None,
    agents_md: Path | None,
    harness: str | None,
    assignments: list[str] | None,
) -> "Asked":
    from agentstream.infra.cli.asking import Asked
    from agentstream.infra.cli.exits import USAGE, fail

    if session is not None and continued is not None:
        fail("--session and --continue name two sessions: give one of them", USAGE)
    return Asked(
        text=text,
        session=session,
        continued=continued,
        model=model,
        agents_md=agents_md,
        harness=harness,
        assignments=tuple(assignments or ()),
    )
