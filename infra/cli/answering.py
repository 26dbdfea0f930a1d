"""A run as `invoke` and `chat` show it: words as they come, and how it ended."""

import asyncio
from collections.abc import Mapping

from agentstream.consumers.client import AgentClient, ClientError, RecordedHistory, Run, Voided
from agentstream.consumers.client.requests import TurnOptions
from agentstream.infra.cli.cancelling import whoever
from agentstream.infra.cli.exits import FAILED, OK
from agentstream.infra.cli.screen import Screen
from agentstream.infra.cli.silence import Silence
from agentstream.infra.rendering import LiveRun, problem_line, summary
from agentstream.schemas.results import InvokeResult

CANCEL_SECONDS = 10.0


def silence_of(options: TurnOptions) -> Silence:
    """What listens for a run's silence. Needs a running loop."""
    parameters = options.get("parameters")
    mode = parameters.get("stream") if isinstance(parameters, Mapping) else None
    return Silence(asyncio.get_running_loop().time(), alive_is_sent=mode != "none")


async def follow(run: Run, screen: Screen, silence: Silence, *, as_json: bool) -> InvokeResult:
    """Show a run until it ends. Raises what following raises."""
    # A pipe gets the answer once, whole: what an attempt wrote before it failed must not end up in `$(…)`.
    live = LiveRun(piece=screen.piece if screen.for_people else lambda _piece: None, line=screen.note)
    try:
        async for event in run:
            silence.heard(event, asyncio.get_running_loop().time())
            if not as_json:
                live.show(event)
            elif not isinstance(event, Voided):
                screen.json({"event": event.model_dump(mode="json", exclude_none=True)})
            else:
                screen.json({"voided": True})
    finally:
        live.end_text()
    return await run.result()


def show_result(result: InvokeResult, screen: Screen, *, as_json: bool) -> int:
    """Show how a run ended; gives the exit code."""
    completed = result.status == "completed"
    if as_json:
        screen.json({"result": result.model_dump(mode="json", exclude_none=True)})
        return OK if completed else FAILED
    if completed and not screen.for_people:
        screen.out(result.text)
    if not completed:
        screen.note(problem_line(result), "red")
    screen.note(summary(result))
    return OK if completed else FAILED


async def cancel(client: AgentClient, run_id: str, screen: Screen) -> None:
    """Cancel a run whose user pressed Ctrl-C, and say so; its request may be on its way still."""
    try:
        async with asyncio.timeout(CANCEL_SECONDS):
            await client.cancel(run_id, "interrupted at its terminal", requested_by=whoever())
    except (ClientError, TimeoutError) as error:
        screen.note(f"interrupted; run {run_id} could not be cancelled and goes on: {str(error) or 'no answer'}", "red")
    else:
        screen.note(f"interrupted; run {run_id} is cancelled", "yellow")


def continued(found: RecordedHistory) -> str:
    """What is said of a history that was found."""
    count = len(found.messages)
    line = f"session {found.session_id} goes on after {count} message{'' if count == 1 else 's'}"
    if found.lost:
        line += f"; without {found.lost} of its turns, which are no longer on the log"
    if found.since is not None:
        line += f"; its partition's log begins at {found.since:%Y-%m-%d %H:%M} UTC, and a turn before that is unknown"
    return line
