"""`agentstream invoke` of one message."""

import asyncio
import sys
from collections.abc import Mapping
from dataclasses import dataclass

from pydantic import JsonValue

from agentstream.consumers.client import AgentClient, Run, RunTimeout, SubmittedRun
from agentstream.consumers.client.requests import Content, RequestOptions, prepare
from agentstream.infra.cli.answering import cancel, continued, follow, show_result, silence_of
from agentstream.infra.cli.asking import Asked, request_options, said_as_argument, said_on_stdin
from agentstream.infra.cli.calling import Where, calling, where_to
from agentstream.infra.cli.context import Context
from agentstream.infra.cli.exits import OK, TIMED_OUT, USAGE, fail
from agentstream.infra.cli.screen import Screen
from agentstream.infra.cli.silence import Silence, watching
from agentstream.schemas.messages import Message


@dataclass(frozen=True, kw_only=True, slots=True)
class Manner:
    """How to ask."""

    wait: bool
    """Whether to wait for the result, or only say where the request lies."""
    timeout: float
    """Seconds to wait."""
    as_json: bool
    """Whether to write JSON."""
    accept_gaps: bool = False
    """Whether to continue a session although turns of it are gone."""


def run_invoke(context: Context, asked: Asked, manner: Manner) -> None:
    """Send it; show the run and fail if it does not complete, or only say where it lies."""
    if not asked.text and sys.stdin.isatty():
        fail("say what to ask: agentstream invoke 'Hello', or pipe it in", USAGE)
    text = said_on_stdin() if asked.text in ("", "-") else said_as_argument(asked.text)
    if not text.strip():
        fail("there is nothing to ask: the text is empty", USAGE)
    options = request_options(asked)
    code = asyncio.run(_invoke(where_to(context), asked, text, options, manner))
    if code != OK:
        sys.exit(code)


async def _invoke(where: Where, asked: Asked, text: str, options: RequestOptions, manner: Manner) -> int:
    screen = Screen()
    async with calling(where) as client:
        content: Content = text
        if asked.continued is not None:
            content = await _conversation(client, asked.continued, text, screen, manner)
            options["session_id"] = asked.continued
        if not manner.wait:
            _show_submitted(await client.submit(content, **options), screen, as_json=manner.as_json)
            return OK
        # Prepared here, so that Ctrl-C while it is being sent cancels it and says so: the brokers may have it by then.
        prepared = prepare(content, options)
        followed: Run | None = None
        try:
            # Out of patience is no reason to cancel, Ctrl-C is: so it is decided here, and said.
            async with client.stream(prepared, timeout=manner.timeout, cancel_on_exit=False) as run:
                followed, silence = run, silence_of(options)
                async with watching(silence, where.cluster.connection, lambda line: screen.note(line, "yellow")):
                    return await _followed(run, screen, silence, as_json=manner.as_json)
        except asyncio.CancelledError:
            if followed is None or not followed.over:
                await cancel(client, prepared.run_id, screen)
            raise


async def _conversation(
    client: AgentClient, session_id: str, text: str, screen: Screen, manner: Manner
) -> tuple[Message, ...]:
    found = await client.history(session_id, lost_is_fine=manner.accept_gaps, progress=screen.note)
    screen.note(continued(found))
    return (*found.messages, Message.of_text("user", text))


async def _followed(run: Run, screen: Screen, silence: Silence, *, as_json: bool) -> int:
    try:
        result = await follow(run, screen, silence, as_json=as_json)
    except RunTimeout as error:
        fail(f"{error}; it goes on (`agentstream cancel {run.run_id}` ends it)", TIMED_OUT)
    return show_result(result, screen, as_json=as_json)


def _show_submitted(submitted: SubmittedRun, screen: Screen, *, as_json: bool) -> None:
    shown: Mapping[str, JsonValue] = {
        "run_id": submitted.run_id,
        "session_id": submitted.session_id,
        "topic": submitted.position.topic,
        "partition": submitted.position.partition,
        "offset": submitted.position.offset,
        "trace_id": submitted.trace.trace_id,
    }
    if as_json:
        screen.json({"submitted": {**shown}})
    else:
        screen.out("\n".join(f"{name}\t{value}" for name, value in shown.items()))
