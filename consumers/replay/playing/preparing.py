"""From a recorded run to the request that is sent again: its own names, its own parameters, no deadline of the past."""

import hashlib

from pydantic import JsonValue

from agentstream.consumers.effective import MAX_ECHO_BYTES
from agentstream.consumers.replay.playing.terms import ReplayTerms
from agentstream.schemas.base import MAX_SESSION_ID
from agentstream.schemas.messages import Message
from agentstream.schemas.recordings import RecordedRun
from agentstream.schemas.requests import AgentParameters, InvokeRequest

_MAX_RUN_ID = 128
_FILLED = ("model", "agents_md", "harness", "tools", "limits", "retry", "thinking", "stream")
_CUT = "\n[cut: "


def replayed_id(replay: str, repeat: int, run_id: str) -> str:
    """The run id in the replay: with its prefix, and the same each time it is asked for."""
    return _named(f"replay-{replay}:{repeat}:", run_id, _MAX_RUN_ID)


def replayed_session(replay: str, repeat: int, session_id: str) -> str:
    """The session in the replay. Each repeat has its own, or one would wait for the other."""
    return _named(f"replay-{replay}:{repeat}:", session_id, MAX_SESSION_ID)


def _named(prefix: str, name: str, longest: int) -> str:
    if len(prefix) + len(name) <= longest:
        return prefix + name
    return f"{prefix}sha256-{hashlib.sha256(name.encode()).hexdigest()}"


def replayed_request(
    run: RecordedRun, terms: ReplayTerms, *, replay: str, repeat: int, messages: tuple[Message, ...]
) -> InvokeRequest:
    """The request of one repeat, asked with these messages."""
    return InvokeRequest(
        id=replayed_id(replay, repeat, run.run_id),
        session_id=replayed_session(replay, repeat, run.session_id),
        messages=messages,
        parameters=replayed_parameters(run, terms),
        metadata=run.request.metadata,
    )


def replayed_parameters(run: RecordedRun, terms: ReplayTerms) -> AgentParameters:
    """What was asked for, what took effect then where nothing was, and over both the changes of this replay."""
    asked = run.request.parameters.model_dump(exclude_none=True)
    took_effect = {} if run.result is None or run.result.attempt == 0 else _known(run.result.parameters)
    changes = terms.changes.model_dump(exclude_none=True)
    before = _over(took_effect, asked)
    merged = _over(before, changes)
    if _kind(before) != _kind(merged) and "harness" in changes:
        merged["harness"] = changes["harness"]  # options of another harness are none of this one's
    if terms.mode == "frozen":
        merged.pop("credentials", None)
    return AgentParameters.model_validate(merged)


def _kind(parameters: dict[str, JsonValue]) -> JsonValue:
    harness = parameters.get("harness")
    return harness.get("kind") if isinstance(harness, dict) else None


def _known(parameters: AgentParameters) -> dict[str, JsonValue]:
    """What a result repeats of its parameters: what is longer than 4 KiB it has only the beginning of."""
    whole = parameters.model_dump(exclude_none=True)
    known = {name: whole[name] for name in _FILLED if name in whole}
    if _CUT in str(known.get("agents_md", ""))[-128:] and len(str(known["agents_md"]).encode()) > MAX_ECHO_BYTES // 2:
        del known["agents_md"]
    harness = known.get("harness")
    if isinstance(harness, dict) and set(harness.get("options") or {}) == {"cut"}:
        del known["harness"]
    return known


def _over(below: dict[str, JsonValue], above: dict[str, JsonValue]) -> dict[str, JsonValue]:
    """`above` where it says something; `limits`, options and the like field by field."""
    merged = dict(below)
    for name, value in above.items():
        lower = merged.get(name)
        both = isinstance(lower, dict) and isinstance(value, dict)
        merged[name] = _over(lower, value) if both else value  # type: ignore[arg-type]  # checked in `both`
    return merged
