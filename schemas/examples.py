"""Small, true examples of each wire model, shown in the interface's description and tested against the models."""

from collections.abc import Mapping
from typing import Final

from pydantic import JsonValue

_RUN: Final = "0199e1a0-7a40-7c3e-8f52-6d0f0a3b9c11"
_ATTEMPT: Final = "0199e1a0-7b02-7d11-9a6e-2f4c5d6e7f80"

EXAMPLES: Final[Mapping[str, Mapping[str, JsonValue]]] = {
    "invoke-request": {
        "smallest": {"messages": [{"role": "user", "content": "hi"}]},
        "with history and parameters": {
            "id": _RUN,
            "session_id": "session-7",
            "messages": [
                {"role": "user", "content": "My name is Ada."},
                {"role": "assistant", "parts": [{"type": "text", "content": "Hello Ada."}]},
                {"role": "user", "content": "What is my name?"},
            ],
            "parameters": {"model": "openai/gpt-5-mini", "tools": ["read"], "limits": {"total_ms": 60000}},
            "ttl_ms": 30000,
            "metadata": {"tenant": "acme"},
        },
    },
    "cancel-run": {"cancel": {"run_id": _RUN, "reason": "the user left"}},
    "stream-events": {
        "two deltas": {
            "run_id": _RUN,
            "session_id": "session-7",
            "claim": 1760000000000,
            "attempt": 1,
            "attempt_id": _ATTEMPT,
            "first_seq": 4,
            "events": [
                {
                    "seq": 4,
                    "time": "2026-01-31T12:00:00.100Z",
                    "turn": 1,
                    "type": "part.delta",
                    "message_id": "m1",
                    "part_index": 0,
                    "part_type": "text",
                    "delta": "Your name ",
                },
                {
                    "seq": 5,
                    "time": "2026-01-31T12:00:00.125Z",
                    "turn": 1,
                    "type": "part.delta",
                    "message_id": "m1",
                    "part_index": 0,
                    "part_type": "text",
                    "delta": "is Ada.",
                },
            ],
        }
    },
    "invoke-result": {
        "completed": {
            "run_id": _RUN,
            "session_id": "session-7",
            "partition": 3,
            "status": "completed",
            "messages": [{"role": "assistant", "parts": [{"type": "text", "content": "Your name is Ada."}]}],
            "finish_reason": "stop",
            "usage": [{"provider": "openai", "model": "gpt-5-mini", "input_tokens": 31, "output_tokens": 6}],
            "claim": 1760000000000,
            "attempt": 1,
            "attempt_id": _ATTEMPT,
            "last_seq": 9,
            "deltas": "complete",
            "parameters": {"model": "openai/gpt-5-mini", "tools": ["read"], "stream": "full"},
            "harness": {"kind": "pi", "versions": {"pi": "0.87.1"}},
            "metadata": {"tenant": "acme"},
            "ended_at": "2026-01-31T12:00:01Z",
        },
        "failed": {
            "run_id": _RUN,
            "session_id": "session-7",
            "partition": 3,
            "status": "failed",
            "error": {
                "code": "provider_auth",
                "title": "The provider refused the credentials",
                "detail": "openai answered 401",
                "retriable": False,
                "stage": "model",
            },
            "claim": 1760000000000,
            "attempt": 1,
            "attempt_id": _ATTEMPT,
            "deltas": "complete",
            "parameters": {"model": "openai/gpt-5-mini"},
            "ended_at": "2026-01-31T12:00:01Z",
        },
    },
    "finished-run": {
        "completed": {
            "status": "completed",
            "session_id": "session-7",
            "offset": 4711,
            "attempt_id": _ATTEMPT,
            "body_hash": "9f86d081884c7d65",
        }
    },
    "evaluation": {
        "a failure": {
            "run_id": _RUN,
            "session_id": "session-7",
            "comparison_id": "0199e1b0-0000-7c3e-8f52-6d0f0a3b9c11",
            "side": "candidate",
            "replay_run_id": "replay-7-0199e1a0",
            "gen_ai.evaluation.name": "exact",
            "gen_ai.evaluation.score.value": 0.0,
            "gen_ai.evaluation.score.label": "fail",
            "gen_ai.evaluation.explanation": "another text",
            "trace_id": "4bf92f3577b34da6a3ce929d0e0e4736",
            "evaluated_at": "2026-02-01T12:00:00Z",
        }
    },
}
"""By short name of the wire model: examples by what they show."""
