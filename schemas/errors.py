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


def _rule(title: str, stage: Stage, *, retriable: bool = False, dead_letter: bool = False) -> ErrorRule:
    return ErrorRule(title=title, stage=stage, retriable=retriable, dead_letter=dead_letter)


_TABLE: dict[ErrorCode, ErrorRule] = {
    ErrorCode.MALFORMED_JSON: _rule("The value is not well-formed JSON", Stage.DECODE, dead_letter=True),
    ErrorCode.SCHEMA_INVALID: _rule("The value breaks the schema", Stage.DECODE, dead_letter=True),
    ErrorCode.PAYLOAD_TOO_LARGE: _rule("The value is larger than allowed", Stage.DECODE, dead_letter=True),
    ErrorCode.UNSUPPORTED_VERSION: _rule("This version is not supported", Stage.DECODE, dead_letter=True),
    ErrorCode.UNSUPPORTED: _rule("This feature is not supported", Stage.ADMIT, dead_letter=True),
    ErrorCode.DUPLICATE_CONFLICT: _rule("The run id was used with another body", Stage.ADMIT, dead_letter=True),
    ErrorCode.UNKNOWN_HARNESS: _rule("No such harness", Stage.ADMIT, dead_letter=True),
    ErrorCode.HARNESS_NOT_ALLOWED: _rule("This worker does not allow the harness", Stage.ADMIT, dead_letter=True),
    ErrorCode.TOOL_NOT_ALLOWED: _rule("This worker does not allow the tool", Stage.ADMIT, dead_letter=True),
    ErrorCode.MODEL_UNAVAILABLE: _rule("The model is not available", Stage.MODEL, dead_letter=True),
    ErrorCode.PROVIDER_AUTH: _rule("The provider refused the credentials", Stage.MODEL, dead_letter=True),
    ErrorCode.PROVIDER_ERROR: _rule("The provider failed", Stage.MODEL, retriable=True, dead_letter=True),
    ErrorCode.RATE_LIMITED: _rule("The provider limits the rate", Stage.MODEL, retriable=True, dead_letter=True),
    ErrorCode.HARNESS_CRASHED: _rule("The harness crashed", Stage.EXECUTE, retriable=True, dead_letter=True),
    ErrorCode.HARNESS_UNAVAILABLE: _rule("The harness is not available", Stage.EXECUTE, retriable=True, dead_letter=True),
    ErrorCode.CRASH_LIMIT: _rule("The run was lost with its worker too often", Stage.EXECUTE, dead_letter=True),
    ErrorCode.TOTAL_TIMEOUT: _rule("The run took too long", Stage.EXECUTE, dead_letter=True),
    ErrorCode.FIRST_EVENT_TIMEOUT: _rule("The agent did not begin in time", Stage.EXECUTE, retriable=True, dead_letter=True),
    ErrorCode.IDLE_TIMEOUT: _rule("The agent was silent for too long", Stage.EXECUTE, retriable=True, dead_letter=True),
    ErrorCode.TOOL_TIMEOUT: _rule("A tool took too long", Stage.TOOL, dead_letter=True),
    ErrorCode.MAX_TURNS: _rule("The agent used all its turns", Stage.EXECUTE),
    ErrorCode.OUTPUT_TOO_LARGE: _rule("The output is larger than allowed", Stage.PRODUCE, dead_letter=True),
    ErrorCode.DEADLINE_EXCEEDED: _rule("The deadline passed before the run started", Stage.ADMIT),
    ErrorCode.NO_OUTPUT: _rule("The agent produced nothing", Stage.EXECUTE),
    ErrorCode.BUDGET_EXCEEDED: _rule("The budget is used up", Stage.EXECUTE),
    ErrorCode.CANCELLED: _rule("The run was cancelled", Stage.EXECUTE),
    ErrorCode.INTERNAL: _rule("An error inside agentstream", Stage.EXECUTE, dead_letter=True),
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
