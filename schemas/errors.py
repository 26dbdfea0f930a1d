"""The one table of error codes: what each means, where it arises, whether to try again, whether it is a dead letter.

    Problem                 what a client sees (RFC 9457-shaped): code, title, detail, retriable, stage
    ErrorCode -> ErrorRule  the table; `error_rule(code)` looks a code up

A code is low-cardinality and doubles as OpenTelemetry's `error.type`.
"""

from dataclasses import dataclass
from enum import StrEnum
from typing import Self

from pydantic import Field

from agentstream.schemas.base import WireModel

MAX_DETAIL = 500


class Stage(StrEnum):
    """Where on the path of a record an error arose."""

    DECODE = "decode"
    ADMIT = "admit"
    EXECUTE = "execute"
    MODEL = "model"
    TOOL = "tool"
    PRODUCE = "produce"


class ErrorCode(StrEnum):
    """Every code that a result, an event or a dead letter may carry."""

    MALFORMED_JSON = "malformed_json"
    SCHEMA_INVALID = "schema_invalid"
    PAYLOAD_TOO_LARGE = "payload_too_large"
    UNSUPPORTED_VERSION = "unsupported_version"
    UNSUPPORTED = "unsupported"
    DUPLICATE_CONFLICT = "duplicate_conflict"
    UNKNOWN_HARNESS = "unknown_harness"
    HARNESS_NOT_ALLOWED = "harness_not_allowed"
    TOOL_NOT_ALLOWED = "tool_not_allowed"
    MODEL_UNAVAILABLE = "model_unavailable"
    PROVIDER_AUTH = "provider_auth"
    PROVIDER_ERROR = "provider_error"
    RATE_LIMITED = "rate_limited"
    HARNESS_CRASHED = "harness_crashed"
    HARNESS_UNAVAILABLE = "harness_unavailable"
    CRASH_LIMIT = "crash_limit"
    TOTAL_TIMEOUT = "total_timeout"
    FIRST_EVENT_TIMEOUT = "first_event_timeout"
    IDLE_TIMEOUT = "idle_timeout"
    TOOL_TIMEOUT = "tool_timeout"
    MAX_TURNS = "max_turns"
    OUTPUT_TOO_LARGE = "output_too_large"
    DEADLINE_EXCEEDED = "deadline_exceeded"
    NO_OUTPUT = "no_output"
    BUDGET_EXCEEDED = "budget_exceeded"
    CANCELLED = "cancelled"
    REPLAY_DIVERGED = "replay_diverged"
    INTERNAL = "internal"


@dataclass(frozen=True, kw_only=True, slots=True)
class ErrorRule:
    """What the system does about one code."""

    title: str
    """One short sentence for a person."""
    stage: Stage
    """Where it usually arises."""
    retriable: bool
    """Whether the same request may succeed if tried again."""
    dead_letter: bool
    """Whether the record goes to the dead letters: it was refused, or is worth sending again."""
    advice: str
    """What the caller or the operator can do about it, in one sentence."""


def _refused(title: str, stage: Stage, advice: str) -> ErrorRule:
    return ErrorRule(title=title, stage=stage, retriable=False, dead_letter=True, advice=advice)


def _worth_retrying(title: str, stage: Stage, advice: str) -> ErrorRule:
    return ErrorRule(title=title, stage=stage, retriable=True, dead_letter=True, advice=advice)


def _final(title: str, stage: Stage, advice: str) -> ErrorRule:
    return ErrorRule(title=title, stage=stage, retriable=False, dead_letter=False, advice=advice)


_TABLE: dict[ErrorCode, ErrorRule] = {
    ErrorCode.MALFORMED_JSON: _refused(
        "The value is not well-formed JSON",
        Stage.DECODE,
        "Send plain UTF-8 JSON, one object per record, without a schema registry's framing.",
    ),
    ErrorCode.SCHEMA_INVALID: _refused(
        "The value breaks the schema",
        Stage.DECODE,
        "Correct the field that the detail names; `agentstream inspect` has the schema.",
    ),
    ErrorCode.PAYLOAD_TOO_LARGE: _refused(
        "The value is larger than allowed",
        Stage.DECODE,
        "Shorten the history, or put large content elsewhere and send a `uri` part.",
    ),
    ErrorCode.UNSUPPORTED_VERSION: _refused(
        "This version is not supported",
        Stage.DECODE,
        "Send the version that `ce_type` names in the table of topics, or upgrade the reader.",
    ),
    ErrorCode.UNSUPPORTED: _refused(
        "This feature is not supported", Stage.ADMIT, "Leave the field out that the detail names."
    ),
    ErrorCode.DUPLICATE_CONFLICT: _refused(
        "The run id was used with another body", Stage.ADMIT, "Give every request an id of its own, or none."
    ),
    ErrorCode.UNKNOWN_HARNESS: _refused(
        "No such harness", Stage.ADMIT, "Name a harness that `agentstream inspect` lists."
    ),
    ErrorCode.HARNESS_NOT_ALLOWED: _refused(
        "This worker does not allow the harness",
        Stage.ADMIT,
        "Name an allowed harness, or add this one to AGENTSTREAM_HARNESSES.",
    ),
    ErrorCode.TOOL_NOT_ALLOWED: _refused(
        "This worker does not allow the tool", Stage.ADMIT, "Leave the tool out, or allow it in the worker's settings."
    ),
    ErrorCode.MODEL_UNAVAILABLE: _refused(
        "The model is not available", Stage.MODEL, "Check `provider/id`, and that these credentials may use the model."
    ),
    ErrorCode.PROVIDER_AUTH: _refused(
        "The provider refused the credentials", Stage.MODEL, "Check the named credentials in the worker's settings."
    ),
    ErrorCode.PROVIDER_ERROR: _worth_retrying(
        "The provider failed", Stage.MODEL, "Send it again later; the worker has already tried several times."
    ),
    ErrorCode.RATE_LIMITED: _worth_retrying(
        "The provider limits the rate", Stage.MODEL, "Send it again later, or run fewer at once."
    ),
    ErrorCode.HARNESS_CRASHED: _worth_retrying(
        "The harness crashed", Stage.EXECUTE, "Send it again; if it crashes again, look into the worker's log."
    ),
    ErrorCode.HARNESS_UNAVAILABLE: _worth_retrying(
        "The harness is not available",
        Stage.EXECUTE,
        "Run `agentstream doctor` where the worker runs, then send it again.",
    ),
    ErrorCode.CRASH_LIMIT: _refused(
        "The run was lost with its worker too often",
        Stage.EXECUTE,
        "Find out what in this request kills workers before it is sent again.",
    ),
    ErrorCode.TOTAL_TIMEOUT: _refused(
        "The run took too long", Stage.EXECUTE, "Raise `limits.total_ms` within the worker's bound, or ask for less."
    ),
    ErrorCode.FIRST_EVENT_TIMEOUT: _worth_retrying(
        "The agent did not begin in time",
        Stage.EXECUTE,
        "Send it again; if it lasts, check the provider and `limits.first_event_ms`.",
    ),
    ErrorCode.IDLE_TIMEOUT: _worth_retrying(
        "The agent was silent for too long",
        Stage.EXECUTE,
        "Send it again; if it lasts, check the provider and `limits.idle_ms`.",
    ),
    ErrorCode.TOOL_TIMEOUT: _refused(
        "A tool took too long",
        Stage.TOOL,
        "Raise `limits.tool_ms` within the worker's bound, or have the tool do less.",
    ),
    ErrorCode.MAX_TURNS: _final(
        "The agent used all its turns",
        Stage.EXECUTE,
        "Raise `limits.max_turns` within the worker's bound, or ask for less.",
    ),
    ErrorCode.OUTPUT_TOO_LARGE: _refused(
        "The output is larger than allowed",
        Stage.PRODUCE,
        "Ask for less at once, or have a tool write large output elsewhere.",
    ),
    ErrorCode.DEADLINE_EXCEEDED: _final(
        "The deadline passed before the run started",
        Stage.ADMIT,
        "Allow more time, or add workers: the requests waited too long.",
    ),
    ErrorCode.NO_OUTPUT: _final(
        "The agent produced nothing", Stage.EXECUTE, "Rephrase the request; the model answered with an empty message."
    ),
    ErrorCode.BUDGET_EXCEEDED: _final("The budget is used up", Stage.EXECUTE, "Raise the budget, or ask for less."),
    ErrorCode.CANCELLED: _final("The run was cancelled", Stage.EXECUTE, "Nothing: somebody asked for it."),
    ErrorCode.REPLAY_DIVERGED: _final(
        "The replay left its recording",
        Stage.EXECUTE,
        "Look at the first step that differs; what comes after it was never recorded.",
    ),
    ErrorCode.INTERNAL: _refused(
        "An error inside agentstream", Stage.EXECUTE, "Report it with the trace id; the worker's log has the details."
    ),
}


def error_rule(code: ErrorCode) -> ErrorRule:
    """The table's line for a code. Total: every code has one (tested)."""
    return _TABLE[code]


class Problem(WireModel):
    """An error as a client sees it (RFC 9457-shaped). Never holds a stack trace, a secret or a machine path."""

    code: ErrorCode = Field(description="Low-cardinality code, from the one table of codes.")
    title: str = Field(description="One short sentence, the same for every error of this code.")
    detail: str | None = Field(default=None, description="One line about this very case.")
    retriable: bool = Field(description="Whether the same request may succeed if sent again.")
    stage: Stage = Field(description="Where on the path of the record it arose.")

    @classmethod
    def of(cls, code: ErrorCode, detail: str | None = None, *, stage: Stage | None = None) -> Self:
        """The problem for a code, with title, stage and retriable from the table; `detail` is cut to one line."""
        rule = error_rule(code)
        line = None if detail is None else " ".join(detail.split())[:MAX_DETAIL]
        return cls(code=code, title=rule.title, detail=line, retriable=rule.retriable, stage=stage or rule.stage)
