"""A steady load with a known seed: each session's requests in order, whatever the brokers go through."""

import asyncio
import random
import time
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass, field
from functools import partial

from aiokafka.errors import KafkaError
from pydantic import JsonValue

from agentstream.producers.kafka import Producer, idempotent_producer
from agentstream.producers.requests import RequestProducer
from agentstream.schemas.messages import Message
from agentstream.schemas.requests import AgentParameters, HarnessChoice, InvokeRequest
from agentstream.schemas.topics import MAX_REQUEST_BYTES
from tests.chaos.fleet import Fleet
from tests.chaos.watcher import Watcher

__all__ = ["Load", "Watcher", "scripted"]

# How long runs take, in words × milliseconds: most are short, a few outlive a session timeout.
RUNS: tuple[tuple[float, int, int], ...] = ((0.80, 3, 15), (0.15, 10, 60), (0.04, 20, 150), (0.01, 20, 500))
Send = Callable[[], Awaitable[None]]


@dataclass
class Load:
    """Requests sent so far."""

    fleet: Fleet
    seed: int
    sessions: int
    acknowledged: list[str] = field(default_factory=list)
    unsure: list[str] = field(default_factory=list)
    """Sent without an answer: they may have a result or none."""
    begun: int = 0
    """How many of the load's requests had their turn."""

    async def run(self, count: int, *, per_second: float) -> None:
        """Send `count` requests at this rate, each session's in order."""
        rng = random.Random(self.seed)
        self._sending = set[asyncio.Task[None]]()
        tails: dict[str, asyncio.Task[None]] = {}
        async with RequestProducer(self._new_producer, self.fleet.topics) as self._requests:
            begun = time.monotonic()
            for number in range(count):
                session, send = self._begin(number, rng)
                tails[session] = self._spawn(self._in_turn(send, tails.get(session)))
                self.begun += 1
                await asyncio.sleep(max(0.0, begun + number / per_second - time.monotonic()))
            while self._sending:
                await asyncio.wait(set(self._sending))

    def _new_producer(self) -> Producer:
        self._producer = idempotent_producer(self.fleet.connection, max_request_size=MAX_REQUEST_BYTES)
        return self._producer

    def _spawn(self, work: Coroutine[object, object, None]) -> asyncio.Task[None]:
        task = asyncio.create_task(work)
        self._sending.add(task)
        task.add_done_callback(self._sending.discard)
        return task

    def _begin(self, number: int, rng: random.Random) -> tuple[str, Send]:
        """The session of the request with this number, and what sends it."""
        request = self._request(number, rng)
        return request.session_id or "", partial(self._submit, request)

    def _request(self, number: int, rng: random.Random) -> InvokeRequest:
        _, words, delay_ms = rng.choices(RUNS, [weight for weight, _, _ in RUNS])[0]
        return scripted(
            f"run-{self.seed}-{number}", f"session-{rng.randrange(self.sessions)}", words=words, delay_ms=delay_ms
        )

    async def _in_turn(self, send: Send, before: asyncio.Task[None] | None) -> None:
        if before is not None:
            await asyncio.wait({before})
        await send()

    async def _submit(self, request: InvokeRequest) -> None:
        try:
            await self._requests.submit(request)
        except (KafkaError, TimeoutError):
            self.unsure.append(request.id or "")
        else:
            self.acknowledged.append(request.id or "")


def scripted(run_id: str, session: str, *, words: int, delay_ms: int, **more: JsonValue) -> InvokeRequest:
    """A request whose answer is so many words of its own, each this late."""
    text = " ".join(f"{run_id}-{word}" for word in range(words))
    options: dict[str, JsonValue] = {"text": text, "delay_ms": delay_ms, **more}
    return InvokeRequest(
        id=run_id,
        session_id=session,
        messages=(Message.of_text("user", f"request {run_id}"),),
        parameters=AgentParameters(harness=HarnessChoice(kind="scripted", options=options)),
    )
