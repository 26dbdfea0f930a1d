"""`agentstream invoke`."""

import asyncio
import difflib
import json
import sys
from collections.abc import AsyncIterator, Collection, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from opentelemetry.trace import NoOpTracer, Tracer
from pydantic import BaseModel, JsonValue

from agentstream.consumers.client import AgentClient, ClientError, Run, RunTimeout, SubmittedRun, Voided
from agentstream.consumers.client.requests import RequestOptions
from agentstream.infra.cli.cancelling import whoever
from agentstream.infra.cli.context import Context
from agentstream.infra.cli.exits import FAILED, OK, TIMED_OUT, USAGE, fail
from agentstream.infra.cli.screen import Screen
from agentstream.infra.cli.silence import Silence, watching
from agentstream.infra.rendering import LiveRun, problem_line, summary
from agentstream.infra.telemetry.environment import Destination, telemetry_settings
from agentstream.infra.topic_admin import topic_admin
from agentstream.infra.tracing import SCOPE
from agentstream.schemas.requests import AgentParameters, HarnessChoice, Limits, Retry
from agentstream.schemas.results import InvokeResult

SERVICE = "agentstream-client"
"""In the traces of requests that are sent from here, unless OTEL_SERVICE_NAME says otherwise."""
_CANCEL_SECONDS = 10.0
_NESTED: Mapping[str, type[BaseModel]] = {"limits": Limits, "retry": Retry, "harness": HarnessChoice}


@dataclass(frozen=True, kw_only=True, slots=True)
class Asked:
    """What stands on the command line."""

    text: str
    """The question; `-` for stdin."""
    session: str | None
    """The session."""
    model: str | None
    """`provider/id`."""
    agents_md: Path | None
    """A file with instructions."""
    harness: str | None
    """The harness."""
    assignments: tuple[str, ...]
    """`name=value`, each a parameter or `metadata.name`."""


def run_invoke(context: Context, asked: Asked, *, wait: bool, timeout: float, as_json: bool) -> None:
    """Send it; show the run and fail if it does not complete, or only say where it lies."""
    settings = context.settings()
    context.quiet_logs(settings)
    cluster = context.cluster(settings)
    text = sys.stdin.read() if asked.text == "-" else asked.text
    if not text.strip():
        fail("there is nothing to ask: the text is empty", USAGE)
    options = request_options(asked)
    screen = Screen()

    async def invoke() -> int:
        async with topic_admin(cluster.connection):
            pass  # says within 10 s that nobody answers; a producer takes 40 s
        async with (
            _tracer() as tracer,
            AgentClient(
                connection=cluster.connection,
                topic_prefix=cluster.topics.prefix,
                max_request_bytes=settings.max_request_bytes,
                tracer=tracer,
            ) as client,
        ):
            if not wait:
                _show_submitted(await client.submit(text, **options), screen, as_json=as_json)
                return OK
            # Out of patience is no reason to cancel, Ctrl-C is: so it is decided here, and said.
            async with client.stream(text, timeout=timeout, cancel_on_exit=False, **options) as run:
                silence = _silence(options)
                async with watching(silence, cluster.connection, lambda line: screen.note(line, "yellow")):
                    return await _follow_or_cancel(run, screen, silence, as_json=as_json)

    code = asyncio.run(invoke())
    if code != OK:
        sys.exit(code)


@asynccontextmanager
async def _tracer() -> AsyncIterator[Tracer]:
    """For the span of the request. Without an endpoint there is none: to load the SDK takes 0.2 s, all else 0.4."""
    settings = telemetry_settings(service=SERVICE)
    if settings.disabled or settings.traces.endpoint is None:
        yield NoOpTracer()
        return
    from agentstream.infra.telemetry.opening import open_telemetry

    async with open_telemetry(replace(settings, metrics=Destination()), close_s=1.0) as telemetry:
        yield telemetry.tracer_provider.get_tracer(SCOPE)


def request_options(asked: Asked) -> RequestOptions:
    """Options of the command line as those of a request. Fails for an assignment that is none."""
    parameters: dict[str, JsonValue] = {}
    metadata: dict[str, JsonValue] = {}
    for assignment in asked.assignments:
        name, equals, text = assignment.partition("=")
        if not equals or not name:
            fail(f"--set {assignment}: write it as name=value, such as --set limits.max_turns=3", USAGE)
        if name.startswith("metadata."):
            metadata[name.removeprefix("metadata.")] = text
        else:
            _assign(parameters, name, _value(name, text))
    _check_names(parameters)
    if asked.model is not None:
        if not all(asked.model.partition("/")):
            fail(f"--model {asked.model}: write it as provider/id, such as openai/gpt-5-mini", USAGE)
        parameters["model"] = asked.model
    if asked.harness is not None:
        _assign(parameters, "harness.kind", asked.harness)
    if asked.agents_md is not None:
        parameters["agents_md"] = asked.agents_md.read_text(encoding="utf-8")
    options: RequestOptions = {"parameters": parameters}
    if metadata:
        options["metadata"] = {name: str(value) for name, value in metadata.items()}
    if asked.session is not None:
        options["session_id"] = asked.session
    return options


def _check_names(parameters: Mapping[str, JsonValue]) -> None:
    """Workers ignore what they do not know, for the sake of newer callers: a typo had no effect and no word."""
    for name, value in parameters.items():
        _check_name(name, AgentParameters.model_fields, "")
        if name in _NESTED and isinstance(value, dict):
            for inner in value:
                _check_name(inner, _NESTED[name].model_fields, f"{name}.")


def _check_name(name: str, known: Collection[str], prefix: str) -> None:
    if name not in known:
        near = difflib.get_close_matches(name, known, n=1)
        advice = f"did you mean {prefix}{near[0]}?" if near else f"there are {', '.join(known)}"
        fail(f"--set {prefix}{name}: there is no such parameter; {advice}", USAGE)


def _assign(parameters: dict[str, JsonValue], name: str, value: JsonValue) -> None:
    *path, last = name.split(".")
    place = parameters
    for step in path:
        inner = place.setdefault(step, {})
        if not isinstance(inner, dict):
            fail(f"--set {name}: {step} is set to something else already", USAGE)
        place = inner
    place[last] = value


def _value(name: str, text: str) -> JsonValue:
    """JSON where it is JSON, else the text itself; a list of tools may be written with commas."""
    try:
        value: JsonValue = json.loads(text)
    except ValueError:
        value = text
    if name == "tools" and isinstance(value, str):
        return [word.strip() for word in value.split(",") if word.strip()]
    return value


def _silence(options: RequestOptions) -> Silence:
    parameters = options.get("parameters")
    mode = parameters.get("stream") if isinstance(parameters, Mapping) else None
    return Silence(asyncio.get_running_loop().time(), alive_is_sent=mode != "none")


async def _follow_or_cancel(run: Run, screen: Screen, silence: Silence, *, as_json: bool) -> int:
    try:
        return await _follow(run, screen, silence, as_json=as_json)
    except RunTimeout as error:
        fail(f"{error}; it goes on (`agentstream cancel {run.run_id}` ends it)", TIMED_OUT)
    except asyncio.CancelledError:
        if not run.over:
            await _cancel(run, screen)
        raise


async def _cancel(run: Run, screen: Screen) -> None:
    try:
        async with asyncio.timeout(_CANCEL_SECONDS):
            await run.cancel("interrupted at its terminal", requested_by=whoever())
    except (ClientError, TimeoutError) as error:
        screen.note(
            f"interrupted; run {run.run_id} could not be cancelled and goes on: {str(error) or 'no answer'}", "red"
        )
    else:
        screen.note(f"interrupted; run {run.run_id} is cancelled", "yellow")


async def _follow(run: Run, screen: Screen, silence: Silence, *, as_json: bool) -> int:
    # A pipe gets the answer once, whole: what an attempt wrote before it failed must not end up in `$(…)`.
    live = LiveRun(piece=screen.piece if screen.for_people else lambda _piece: None, line=screen.note)
    async for event in run:
        silence.heard(event, asyncio.get_running_loop().time())
        if not as_json:
            live.show(event)
        elif not isinstance(event, Voided):
            screen.json({"event": event.model_dump(mode="json", exclude_none=True)})
        else:
            screen.json({"voided": True})
    live.end_text()
    result = await run.result()
    return _show_result(result, screen, as_json=as_json)


def _show_result(result: InvokeResult, screen: Screen, *, as_json: bool) -> int:
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
