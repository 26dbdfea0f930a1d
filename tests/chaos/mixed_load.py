"""Requests of every kind: short and long ones, some sent twice, some cancelled, and bad ones of many kinds.

What each record must come to stands in its header `chaos-expect`, so that the checker finds it on the log.
"""

import asyncio
import json
import random
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial

from aiokafka.errors import KafkaError

from agentstream.producers.kafka import SEND_SECONDS
from agentstream.schemas.headers import INVOKE_REQUEST, cloud_event
from agentstream.schemas.requests import CancelRun, InvokeRequest
from agentstream.schemas.trace import TraceContext
from tests.chaos.load import Load, Send, scripted
from tests.chaos.outcomes import CONFLICT, EXPECT, RUN

RUNS: tuple[tuple[float, int, int], ...] = (
    (0.785, 4, 15),
    (0.150, 10, 60),
    (0.050, 20, 150),
    (0.012, 20, 500),
    (0.003, 120, 500),
)
"""How often, words, milliseconds each: 45 ms to a minute."""
KINDS = {
    "run": 0.86,
    "retry": 0.02,
    "twice": 0.04,
    "cancel": 0.05,
    "conflict": 0.005,
    "malformed_json": 0.005,
    "malformed_json, named": 0.005,
    "schema_invalid": 0.005,
    "payload_too_large": 0.004,
    "unknown_harness": 0.003,
    "unsupported": 0.003,
}
"""How often each kind of request is sent; every one once among the first."""
TOO_DEEP = 70
LATER_S = 20.0
"""A duplicate is sent at once or up to so much later, when its run is over, or its owner."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Sent:
    """An acknowledged request that owes a result."""

    partition: int
    session: str
    at: float
    """When the brokers had it, by `time.monotonic()`."""
    seconds: float
    """How long its run takes if nothing happens to it."""


@dataclass
class MixedLoad(Load):
    """Requests of every kind."""

    longest_s: float = 60.0
    """No run takes longer."""
    kinds: Counter[str] = field(default_factory=Counter)
    """How many of each kind were acknowledged."""
    sent: dict[str, Sent] = field(default_factory=dict)
    """What is known of acknowledged requests, by run id."""

    def _begin(self, number: int, rng: random.Random) -> tuple[str, Send]:
        run_id, session = f"run-{self.seed}-{number}", f"session-{rng.randrange(self.sessions)}"
        runs = [run for run in RUNS if run[1] * run[2] / 1000 <= self.longest_s]
        _, words, delay_ms = rng.choices(runs, [weight for weight, _, _ in runs])[0]
        drawn, draw = rng.choices(list(KINDS), list(KINDS.values()))[0], rng.random()
        kind = list(KINDS)[number] if number < len(KINDS) else drawn
        if kind not in ("run", "retry", "twice", "cancel", "conflict"):
            return session, partial(self._bad, kind, run_id, session)
        failing = {"fail_attempts": 1} if kind == "retry" else {}
        request = scripted(run_id, session, words=words, delay_ms=delay_ms, **failing)
        return session, partial(self._good, kind, request, draw, words * delay_ms / 1000)

    async def _good(self, kind: str, request: InvokeRequest, draw: float, seconds: float) -> None:
        run_id = request.id or ""
        if kind == "cancel" and draw < 0.2:
            await self._cancel(run_id, 0.0)
        if not await self._put(request.session_id or "", request.to_bytes(), RUN, run_id, seconds=seconds):
            return
        self.kinds[kind] += 1
        if kind == "cancel" and draw >= 0.2:
            _ = self._spawn(self._cancel(run_id, (draw - 0.2) * min(4.0, 2 * seconds)))
        elif kind == "twice":
            _ = self._spawn(self._again(request, run_id, 0.0 if draw < 0.5 else LATER_S * (draw - 0.5)))
        elif kind == "conflict":
            other = scripted(run_id, request.session_id or "", words=1, delay_ms=0)
            await self._put(other.session_id or "", other.to_bytes(), CONFLICT)

    async def _again(self, request: InvokeRequest, run_id: str, after_s: float) -> None:
        await asyncio.sleep(after_s)
        if await self._put(request.session_id or "", request.to_bytes(), RUN, run_id, again=True):
            self.kinds["sent again"] += 1

    async def _bad(self, kind: str, run_id: str, session: str) -> None:
        code, _, named = kind.partition(", ")
        value = json.dumps(_bad_body(code, run_id, session)).encode()
        if code == "malformed_json":
            value = value[:-1]
        owed = None if code == "malformed_json" and not named else run_id
        if await self._put(session, value, code, owed):
            self.kinds[kind] += 1

    async def _put(
        self,
        session: str,
        value: bytes,
        expect: str,
        run_id: str | None = None,
        *,
        seconds: float = 0.0,
        again: bool = False,
    ) -> bool:
        """Send a record; whether the brokers have it. `run_id`: it owes a result under this name."""
        headers: list[tuple[str, bytes]] = [(EXPECT, expect.encode())]
        if run_id is not None:
            headers += cloud_event(INVOKE_REQUEST, run_id, TraceContext.fresh(), ce_id=run_id)
        where = await self._produce(self.fleet.topics.invoke_requests, session, value, headers)
        if run_id is not None and not again:
            (self.unsure if where is None else self.acknowledged).append(run_id)
            if where is not None:
                at = time.monotonic()
                self.sent[run_id] = Sent(partition=where, session=session, at=at, seconds=seconds)
        return where is not None

    async def _cancel(self, run_id: str, after_s: float) -> None:
        await asyncio.sleep(after_s)
        control = CancelRun(run_id=run_id, reason="chaos", requested_by="the load")
        if await self._produce(self.fleet.topics.control, run_id, control.to_bytes(), []) is not None:
            self.kinds["cancel asked"] += 1

    async def _produce(self, topic: str, key: str, value: bytes, headers: Sequence[tuple[str, bytes]]) -> int | None:
        """The partition that has it now, or None if no answer came."""
        try:
            async with asyncio.timeout(SEND_SECONDS):
                sent = await self._producer.send_and_wait(topic, value=value, key=key.encode(), headers=list(headers))
        except (KafkaError, TimeoutError):
            return None
        return int(sent.partition)


def _bad_body(code: str, run_id: str, session: str) -> dict[str, object]:
    body: dict[str, object] = {"messages": [{"role": "user", "content": "hi"}], "session_id": session}
    if code != "malformed_json":
        body["id"] = run_id
    match code:
        case "schema_invalid":
            body["messages"] = []
        case "payload_too_large":
            deep: object = "deep"
            for _ in range(TOO_DEEP):
                deep = [deep]
            body["metadata"] = deep
        case "unknown_harness":
            body["parameters"] = {"harness": {"kind": "oracle"}}
        case "unsupported":
            body["resume"] = {"run_id": "another"}
    return body
