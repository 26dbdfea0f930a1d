"""The scenes but the last two: what is asked, and what must come of it."""

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass, field

from agentstream.consumers.client import Run, SubmittedRun
from agentstream.consumers.client.requests import Content
from agentstream.infra.demo.places import dead_letter_of
from agentstream.infra.demo.show import Row
from agentstream.infra.demo.stage import SceneFailed, Stage
from agentstream.producers.kafka import idempotent_producer, stop_for_good
from agentstream.schemas.events import PartDelta, ToolStarted
from agentstream.schemas.headers import last_wins
from agentstream.schemas.messages import Message
from agentstream.schemas.records import Position
from agentstream.schemas.requests import AgentParameters
from agentstream.schemas.results import InvokeResult
from agentstream.schemas.topics import MAX_REQUEST_BYTES

PATIENCE_S = 120.0
SESSIONS = 10
TOOLS, KILLED = "tools", "killed with -9"
"""Names of runs that are looked for later."""
_DELTAS_BEFORE_THE_KILL = 5
_DEAD_LETTER_SECONDS = 30.0


@dataclass(frozen=True, kw_only=True, slots=True)
class Ended:
    """A run of a scene."""

    name: str
    """For the table."""
    submitted: SubmittedRun
    """Its request."""
    result: InvokeResult
    """Its result."""


@dataclass(kw_only=True)
class Played:
    """What came of the scenes so far."""

    runs: list[Ended] = field(default_factory=list)
    """All runs, in order."""
    rows: list[Row] = field(default_factory=list)
    """Lines for the table that are no runs."""


async def plain_answer(stage: Stage, played: Played) -> None:
    """A plain streamed answer."""
    await _ask(stage, played, "a plain answer", "Hello! Who are you, and how did my message reach you?")


async def tools(stage: Stage, played: Played) -> None:
    """A run that uses tools: bash and read, in its throwaway directory"""
    text = "Run `date > note.txt && wc -c note.txt`, then read note.txt and tell me what it says."
    parameters = AgentParameters(
        tools=("bash", "read"), agents_md="Use the tools you have. Answer in one or two sentences."
    )
    used = await _ask(stage, played, TOOLS, text, parameters=parameters)
    if not {"bash", "read"} <= used:
        raise SceneFailed(f"bash and read were to be used, and these were: {', '.join(sorted(used)) or 'none'}")


async def two_turns(stage: Stage, played: Played) -> None:
    """A session of two turns: the second one uses the first, whose history the client sends"""
    first, second = "My name is Ada. Please remember it.", "What is my name?"
    session = f"demo-{time.time_ns()}"
    await _ask(stage, played, "two turns, 1", first, session=session)
    history = (Message.of_text("user", first), *played.runs[-1].result.messages, Message.of_text("user", second))
    await _ask(stage, played, "two turns, 2", second, session=session, messages=history)
    if "Ada" not in played.runs[-1].result.text:
        raise SceneFailed("the answer does not hold the name that the history does")


async def many_sessions(stage: Stage, played: Played) -> None:
    """Ten sessions at once"""
    started = time.monotonic()
    with stage.show.progress(f"{SESSIONS} sessions", SESSIONS) as count:

        async def one(number: int) -> Ended:
            async with stage.client.stream(f"Count to {10 + number}.", timeout=PATIENCE_S) as run:
                result = await run.result()
            count()
            return Ended(name=f"session {number} of {SESSIONS}", submitted=run.submitted, result=result)

        ended = await asyncio.gather(*(one(number) for number in range(1, SESSIONS + 1)))
    played.runs += ended
    for each in ended:
        _check_completed(each.result)
    wall = time.monotonic() - started
    alone = sum(
        (each.result.ended_at - each.result.started_at).total_seconds() for each in ended if each.result.started_at
    )
    stage.show.note(f"{SESSIONS} runs in {wall:.1f} s; one after the other they would take {alone:.1f} s")


async def bad_record(stage: Stage, played: Played) -> None:
    """A bad record ends as a dead letter, and nothing stops"""
    raw = b'{"messages": [{"role": "user", "content": "no closing brace"'
    stage.show.asked(raw.decode())
    position = await _produce(stage, raw)
    async with asyncio.timeout(_DEAD_LETTER_SECONDS):
        letter = await dead_letter_of(stage.connection, stage.topics, position)
    headers = {name: value.decode("utf-8", "replace") for name, value in last_wins(letter.headers).items()}
    if letter.value != raw:
        raise SceneFailed("the dead letter does not hold the record's bytes")
    for name in ("dlq-error-code", "__dlq.errors.message", "dlq-retriable"):
        stage.show.note(f"{name}: {headers.get(name)}")
    played.rows.append(
        Row(
            scene="a bad record",
            status=headers.get("dlq-error-code", ""),
            crashes="–",
            usage="–",
            trace_id=headers.get("traceparent", "-").split("-")[1],
            request=f"{position.partition}/{position.offset}",
            deltas="–",
            result=f"{letter.position.partition}/{letter.position.offset} †",
        )
    )


async def killed_worker(stage: Stage, played: Played) -> None:
    """A worker is killed with -9 in mid-run, and another one finishes it"""
    text = "Count to 150." if stage.offline else "Write a story of about 300 words about a lighthouse. Plain text."
    stage.show.asked(text)
    async with stage.client.stream(text, timeout=PATIENCE_S) as run:
        live = stage.show.live()
        seen = 0
        async for event in run:
            live.show(event)
            seen += isinstance(event, PartDelta)
            if seen == _DELTAS_BEFORE_THE_KILL and isinstance(event, PartDelta):
                live.end_text()
                await _kill_owner(stage, run)
        live.end_text()
        result = await run.result()
    played.runs.append(Ended(name=KILLED, submitted=run.submitted, result=result))
    _check_completed(result)
    if result.crashes != 1:
        raise SceneFailed(f"one attempt was lost with its worker, and the result says {result.crashes}")
    stage.show.note(f"finished by another worker; crashes: {result.crashes}")


async def ask_at_once(stage: Stage, texts: Sequence[str], parameters: AgentParameters) -> list[Ended]:
    """Ask all of them at once, each in a session of its own. Raises SceneFailed unless they complete."""

    async def one(text: str) -> Ended:
        async with stage.client.stream(text, timeout=PATIENCE_S, parameters=parameters) as run:
            result = await run.result()
        _check_completed(result)
        return Ended(name=f"shadowed: {text[:10]} …", submitted=run.submitted, result=result)

    stage.show.asked(" · ".join(texts))
    return list(await asyncio.gather(*map(one, texts)))


async def _ask(  # noqa: PLR0913  # a run has so many sides
    stage: Stage,
    played: Played,
    name: str,
    text: str,
    *,
    session: str | None = None,
    messages: Sequence[Message] | None = None,
    parameters: AgentParameters | None = None,
) -> set[str]:
    """Ask, show what comes, keep it; returns the tools that were used. Raises SceneFailed unless it completes."""
    stage.show.asked(text)
    content: Content = text if messages is None else messages
    used: set[str] = set()
    async with stage.client.stream(
        content,
        timeout=PATIENCE_S,
        session_id=session or f"demo-{time.time_ns()}",
        parameters=parameters or AgentParameters(),
    ) as run:
        live = stage.show.live()
        async for event in run:
            live.show(event)
            if isinstance(event, ToolStarted):
                used.add(event.tool_name)
        live.end_text()
        result = await run.result()
    played.runs.append(Ended(name=name, submitted=run.submitted, result=result))
    _check_completed(result)
    return used


def _check_completed(result: InvokeResult) -> None:
    if result.status != "completed" or not result.text:
        why = "" if result.error is None else f": {result.error.code}: {result.error.detail or result.error.title}"
        raise SceneFailed(f"run {result.run_id} {result.status}{why}")


async def _kill_owner(stage: Stage, run: Run) -> None:
    name = await stage.owner(run.submitted.position.partition)
    pid = await stage.kill(name)
    stage.show.note(f"kill -9 {pid}: {name} is gone; after its session timeout (6 s) another one takes over …")


async def _produce(stage: Stage, raw: bytes) -> Position:
    producer = idempotent_producer(stage.connection, max_request_size=MAX_REQUEST_BYTES)
    try:
        await producer.start()
        sent = await producer.send_and_wait(stage.topics.invoke_requests, value=raw, key=b"demo-bad")
    finally:
        await stop_for_good(producer)
    return Position(topic=sent.topic, partition=sent.partition, offset=sent.offset)
