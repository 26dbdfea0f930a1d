"""From what a caller says to a request that can be sent."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TypedDict

from pydantic import ValidationError
from uuid_utils.compat import uuid7

from agentstream.consumers.client.checking import (
    NO_CHARACTER,
    first_flaw,
    unfit,
    unknown_in_messages,
    unknown_parameter,
)
from agentstream.consumers.client.errors import RequestRefused
from agentstream.schemas.codec import body_hash
from agentstream.schemas.messages import Message
from agentstream.schemas.parsing import is_text
from agentstream.schemas.requests import AgentParameters, CancelRun, InvokeRequest
from agentstream.schemas.trace import TraceContext

Content = str | InvokeRequest | Sequence[Message | Mapping[str, object]]
"""One user turn as text, a whole conversation, or a request."""


class TurnOptions(TypedDict, total=False):
    """What a caller may add to every turn of a conversation, by the names of `InvokeRequest`."""

    parameters: AgentParameters | Mapping[str, object]
    deadline: datetime
    ttl_ms: int
    parent_run_id: str
    metadata: Mapping[str, str]
    trace: TraceContext
    trace_target: str


class RequestOptions(TurnOptions, total=False):
    """What a caller may add, by the names of `InvokeRequest`; it goes before what a given request says."""

    run_id: str | None
    session_id: str | None


_NOT_IN_THE_BODY = ("trace", "trace_target")


@dataclass(frozen=True, kw_only=True, slots=True)
class Prepared:
    """A request that can be sent."""

    run_id: str
    """Its run id."""
    request: InvokeRequest
    """It, with a run id and a session."""
    trace: TraceContext | None
    """The caller's own, if he has one."""
    trace_target: str | None
    """Name of the place, known to the worker, that the run's spans are exported to."""
    body_hash: str | None
    """As `SubmittedRun` has it."""


def request_of(content: Content, options: RequestOptions) -> InvokeRequest:
    """The request, with a run id and a session. Raises RequestRefused if it is not a valid one."""
    # Python does not check these names. One that was passed over, such as `tools`, gave a run without tools.
    if unknown := [name for name in options if name not in RequestOptions.__annotations__]:
        raise RequestRefused(
            f"`{unknown[0]}` is no option of a request; they are {', '.join(RequestOptions.__annotations__)}; "
            "model, tools, limits and the like go into `parameters`"
        )
    named: dict[str, object] = {
        name: value for name, value in options.items() if name not in _NOT_IN_THE_BODY and value is not None
    }
    if "run_id" in named:
        named["id"] = named.pop("run_id")
    try:
        if isinstance(content, InvokeRequest):
            said: dict[str, object] = {name: getattr(content, name) for name in content.model_fields_set}
        elif isinstance(content, str):
            said = {"messages": (Message.of_text("user", content),)}
        else:
            said = {"messages": tuple(content)}
        _refuse_unknown(said, named)
        request = InvokeRequest.model_validate({"id": str(uuid7()), **said, **named})
    except ValidationError as error:
        raise RequestRefused(f"not a valid request: {first_flaw(error)}") from error
    if why := unfit(request):
        raise RequestRefused(f"not a valid request: {why}")
    run_id = request.id or str(uuid7())
    return request.model_copy(update={"id": run_id, "session_id": request.session_id or run_id})


def _refuse_unknown(said: Mapping[str, object], named: Mapping[str, object]) -> None:
    parameters, messages = named.get("parameters"), said["messages"]
    unknown = unknown_parameter(parameters) if isinstance(parameters, Mapping) else None
    if unknown:
        raise RequestRefused(f"not a valid request: parameters.{unknown}")
    if isinstance(messages, tuple) and (unknown := unknown_in_messages(messages)):
        raise RequestRefused(f"not a valid request: {unknown}")


def prepare(content: Content | Prepared, options: RequestOptions) -> Prepared:
    """What a caller wants sent. Raises RequestRefused if it is not a valid request.

    Whoever must know the id that a run will have prepares it himself, and gives that to `stream`. An id that was made
    here is new, unlike one that he makes: nothing of it can have come before, and nothing is looked for.
    """
    if isinstance(content, Prepared):
        if options:
            raise RequestRefused("a request that is prepared takes no more options")
        return content
    request = request_of(content, options)
    if not is_text(options.get("trace_target") or ""):
        raise RequestRefused(f"not a valid request: trace_target: {NO_CHARACTER}")
    chosen = options.get("run_id") is not None or (isinstance(content, InvokeRequest) and content.id is not None)
    return Prepared(
        run_id=request.id or "",
        request=request,
        trace=options.get("trace"),
        trace_target=options.get("trace_target"),
        body_hash=body_hash(request.to_bytes()) if chosen else None,
    )


def cancel_of(run_id: str, reason: str | None, requested_by: str | None) -> CancelRun:
    """The request to cancel a run. Raises RequestRefused if it is not a valid one."""
    try:
        return CancelRun(run_id=run_id, reason=reason, requested_by=requested_by)
    except ValidationError as error:
        raise RequestRefused(first_flaw(error)) from error
