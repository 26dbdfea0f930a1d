"""The checker of what Pi's runs say under faults: shown that it fails."""

import json
from pathlib import Path

import httpx
import pytest

from tests.chaos.audit import Json, Line, Log
from tests.chaos.fleet import Fleet
from tests.chaos.pi_load import PiLoad, answer_of, dishonest, token_of
from tests.chaos.pi_model import KEYS, MoodyModel

TRACE = "0af7651916cd43dd8448eb211c80319c"
PLACE = {"agentstream-request": "t.invoke-requests/0/0", "traceparent": f"00-{TRACE}-b7ad6b7169203331-01"}


def line(body: Json) -> Line:
    return Line(partition=0, offset=0, key="", headers=PLACE, value=json.dumps(body).encode())


def log_of(result: Json, *, letter: bool = False, error: Json | None = None) -> Log:
    events = [{"type": "run.retrying", "error": error}] if error else []
    return Log(
        requests=[line({"id": "r"})],
        results=[line({"run_id": "r", **result})],
        deltas=[line({"run_id": "r", "events": events})],
        finished=[],
        dead_letters=[line({})] if letter else [],
    )


def completed(text: str, tools: str | None = None, *, is_error: bool = False) -> Json:
    answers = [] if tools is None else [{"type": "tool_call_response", "response": tools, "is_error": is_error}]
    messages = [{"role": "tool", "parts": answers}, {"role": "assistant", "parts": [{"type": "text", "content": text}]}]
    return {"status": "completed", "messages": messages}


def failed(code: str, detail: str = "") -> Json:
    return {"status": "failed", "messages": [], "error": {"code": code, "detail": detail}}


def found(log: Log, kind: str, trace: str = TRACE) -> list[str]:
    model = MoodyModel()
    model.traces["r"].add(trace)
    load = PiLoad(Fleet(bootstrap_servers="", prefix="t.", logs=Path()), 0, sessions=1, model=model)
    load.kinds["r"] = kind
    return dishonest(log, load, ("/tmp/here",))


def test_what_is_honest_passes() -> None:
    assert found(log_of(completed(answer_of("r"))), "plain") == []
    assert found(log_of(completed(answer_of("r"), token_of("r"))), "bash") == []
    assert found(log_of(completed(answer_of("r"), "no space left", is_error=True)), "bash") == []
    assert found(log_of(failed("harness_unavailable"), letter=True), "bash") == []


@pytest.mark.parametrize(
    ("log", "kind"),
    [
        (log_of(completed(answer_of("other"))), "plain"),
        (log_of(completed(answer_of("r")[:-3])), "plain"),
        (log_of(completed(answer_of("r"), token_of("other"))), "bash"),
        (log_of(completed(answer_of("r"), "")), "files"),
        (log_of(completed(answer_of("r"))), "bash"),
        (log_of(failed("internal"), letter=True), "plain"),
        (log_of(failed("harness_unavailable")), "plain"),
        (log_of(failed("harness_unavailable", "no room in /tmp/here"), letter=True), "plain"),
        (log_of(completed(answer_of("r")), error={"code": "provider_error", "detail": "/tmp/here/x"}), "plain"),
        (log_of({**completed(answer_of("r")), "metadata": {"key": KEYS["red"]}}), "plain"),
    ],
)
def test_what_is_not_honest_is_found(log: Log, kind: str) -> None:
    assert len(found(log, kind)) == 1


def test_a_call_of_another_trace_is_found() -> None:
    assert len(found(log_of(completed(answer_of("r"))), "plain", trace="1" * 32)) == 1


async def test_a_call_with_another_runs_key_is_found() -> None:
    async with MoodyModel() as model, httpx.AsyncClient() as client:
        body = {"model": "m", "messages": [{"role": "user", "content": "r red [[say: hi]]"}]}
        for owner in ("red", "blue"):
            headers = {"authorization": f"Bearer {KEYS[owner]}", "traceparent": PLACE["traceparent"]}
            await client.post(f"{model.base_url}/chat/completions", json=body, headers=headers)
        assert model.strangers == [f"r of red came with the key {KEYS['blue']}"]
        assert model.traces["r"] == {TRACE}
