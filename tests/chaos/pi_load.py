"""Requests for Pi, with and without tools, and what each of them must have said if it says that it completed."""

import asyncio
import json
import random
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from pydantic import JsonValue

from agentstream.producers.kafka import idempotent_producer
from agentstream.producers.requests import RequestProducer
from agentstream.schemas.errors import ErrorCode, error_rule
from agentstream.schemas.messages import Message
from agentstream.schemas.requests import AgentParameters, InvokeRequest
from agentstream.schemas.topics import MAX_REQUEST_BYTES
from tests.chaos.audit import Json, Log
from tests.chaos.load import Load
from tests.chaos.pi_model import KEYS, MoodyModel

LIMITS: Mapping[str, JsonValue] = {
    "total_ms": 180_000,
    "first_event_ms": 15_000,
    "idle_ms": 4_000,
    "tool_ms": 20_000,
    "max_attempts": 4,
}
HONEST = {
    ErrorCode.PROVIDER_ERROR,
    ErrorCode.RATE_LIMITED,
    ErrorCode.HARNESS_CRASHED,
    ErrorCode.HARNESS_UNAVAILABLE,
    ErrorCode.FIRST_EVENT_TIMEOUT,
    ErrorCode.IDLE_TIMEOUT,
    ErrorCode.CRASH_LIMIT,
    ErrorCode.TOTAL_TIMEOUT,
    ErrorCode.TOOL_TIMEOUT,
}
"""Codes with which a run may fail under these faults; `internal`, say, would be a bug."""


def _tool(name: str, **arguments: str) -> str:
    return f"[[tool:{name} {json.dumps(arguments)}]]"


def _bash(token: str) -> str:
    return _tool("bash", command=f"echo {token} > note && sleep 0.1 && cat note")


def _files(token: str) -> str:
    return _tool("write", path="deep/note.txt", content=f"{token}\n" * 40) + _tool("read", path="deep/note.txt")


def _chatty(token: str) -> str:
    """More output than Pi keeps in memory: the rest goes to a file in the temporary directory."""
    return _tool("bash", command=f"seq 1 60000; echo {token}")


def _daemon(token: str) -> str:
    """Leaves a process behind that is in nobody's process group."""
    return _tool("bash", command=f"setsid sleep 600 >/dev/null 2>&1 & echo {token}")


def _slow_tool(token: str) -> str:
    return _tool("bash", command=f"sleep 3; echo {token}")


def _bomb(_: str) -> str:
    """A pattern that no one lives to see matched: it keeps the sidecar's event loop busy, for real."""
    touch = _tool("bash", command=f"touch {'a' * 40}c")
    return touch + _tool("find", pattern="+(*a|aa)*b")


SCRIPTS: Mapping[str, tuple[float, Callable[[str], str]]] = {
    "plain": (0.45, lambda _: "[[pace: 5]]"),
    "long": (0.15, lambda _: "[[pace: 120]]"),
    "bash": (0.12, _bash),
    "files": (0.12, _files),
    "chatty": (0.06, _chatty),
    "daemon": (0.05, _daemon),
    "slow-tool": (0.05, _slow_tool),
    "bomb": (0.0, _bomb),
}
"""Kinds of requests: how often, and the script between the prompt's first two words and its answer."""


@dataclass
class PiLoad(Load):
    """Requests that Pi runs against the moody model."""

    model: MoodyModel = field(kw_only=True)
    kinds: dict[str, str] = field(default_factory=dict)
    """The kind of each request, by run id."""

    async def send(self, requests: Sequence[InvokeRequest]) -> None:
        """Send these, at once, beside what `run` sends."""
        async with RequestProducer(
            lambda: idempotent_producer(self.fleet.connection, max_request_size=MAX_REQUEST_BYTES), self.fleet.topics
        ) as producer:
            await asyncio.gather(*(producer.submit(request) for request in requests))
        self.acknowledged += [request.id or "" for request in requests]

    def _request(self, number: int, rng: random.Random) -> InvokeRequest:
        kind = rng.choices(list(SCRIPTS), [weight for weight, _ in SCRIPTS.values()])[0]
        return self.request(f"run-{self.seed}-{number}", kind, f"session-{rng.randrange(self.sessions)}", rng)

    def request(self, run_id: str, kind: str, session: str, rng: random.Random, **limits: int) -> InvokeRequest:
        """One request of this kind; `limits` over the load's."""
        self.kinds[run_id] = kind
        owner = rng.choice(list(KEYS))
        script = SCRIPTS[kind][1](token_of(run_id))
        parameters: dict[str, JsonValue] = {
            "model": "offline/demo",
            "credentials": owner,
            "tools": ["bash", "find", "read", "write"] if "tool:" in script else [],
            "limits": {**LIMITS, **limits},
        }
        return InvokeRequest(
            id=run_id,
            session_id=session,
            messages=(Message.of_text("user", f"{run_id} {owner} {script}[[say: {answer_of(run_id)}]]"),),
            parameters=AgentParameters.model_validate(parameters),
        )


def token_of(run_id: str) -> str:
    """What a run's tools are made to say, and no other run's."""
    return f"token-{run_id}."


def answer_of(run_id: str) -> str:
    """What the model says at the end of a run, and of no other."""
    return f"this is {run_id} and " + " ".join(f"word{number}" for number in range(20)) + f" end of {run_id}"


def dishonest(log: Log, load: PiLoad, private: tuple[str, ...]) -> list[str]:
    """Every result that claims more than happened, fails with a wrong code, or tells a client what is private."""
    letters = {line.headers.get("agentstream-request") for line in log.dead_letters}
    found = []
    for line in log.results:
        result = line.body
        run_id = result["run_id"]
        if result["status"] == "completed":
            found += _half_done(result, load.kinds[run_id])
        elif result["error"]["code"] not in HONEST:
            found.append(f"run {run_id} failed with {result['error']}")
        elif error_rule(ErrorCode(result["error"]["code"])).dead_letter and (
            line.headers.get("agentstream-request") not in letters
        ):
            found.append(f"run {run_id} failed with {result['error']['code']} and has no dead letter")
        found += _told(f"the result of {run_id}", result.get("error"), private)
    for line in log.deltas:
        for event in line.body["events"]:
            found += _told(f"{event['type']} of {line.body['run_id']}", event.get("error"), private)
    for line in log.requests:
        run_id, trace_id = line.body["id"], line.headers["traceparent"].split("-")[1]
        if strange := load.model.traces[run_id] - {trace_id}:
            found.append(f"run {run_id} of trace {trace_id} called the model as {strange}")
    written = [*log.results, *log.deltas, *log.finished, *log.dead_letters]
    return found + [
        f"a key stands in {line}" for line in written for key in KEYS.values() if key.encode() in line.value
    ]


def _half_done(result: Json, kind: str) -> list[str]:
    run_id = result["run_id"]
    spoken = result["messages"][-1]
    if [part.get("content") for part in spoken["parts"]] != [answer_of(run_id)]:
        return [f"run {run_id} ends with {spoken['parts']}"]
    answers = [part for message in result["messages"] if message["role"] == "tool" for part in message["parts"]]
    if kind in ("plain", "long"):
        return [f"run {run_id} has tools"] if answers else []
    if any(answer.get("is_error") for answer in answers):
        return []  # it failed, and says so to model and client
    if not answers or token_of(run_id) not in json.dumps(answers[-1]["response"]):
        return [f"run {run_id} ({kind}): its tools said {json.dumps(answers)[-300:]}"]
    return []


def _told(where: str, error: Json | None, private: tuple[str, ...]) -> list[str]:
    detail = (error or {}).get("detail") or ""
    return [f"{where} names {word}: {detail}" for word in private if word in detail]


def outcomes(log: Log) -> Counter[str]:
    """Results by status or error code; those with a failed tool apart."""
    counted: Counter[str] = Counter()
    for line in log.results:
        result = line.body
        failed_tool = any(
            part.get("is_error")
            for message in result["messages"]
            if message["role"] == "tool"
            for part in message["parts"]
        )
        error = result.get("error")
        code = result["status"] if error is None else f"{error['code']} ({(error.get('detail') or '')[:40]})"
        counted[f"{code} with a failed tool" if failed_tool and code == "completed" else code] += 1
    return counted
