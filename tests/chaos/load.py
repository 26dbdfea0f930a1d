"""A steady load with a known seed, and a reader that is there all the time."""

import asyncio
import json
import random
import time
from dataclasses import dataclass, field
from itertools import pairwise

from aiokafka.errors import KafkaError
from pydantic import JsonValue

from agentstream.producers.kafka import idempotent_producer
from agentstream.producers.requests import RequestProducer
from agentstream.schemas.messages import Message
from agentstream.schemas.requests import AgentParameters, HarnessChoice, InvokeRequest
from agentstream.schemas.topics import MAX_REQUEST_BYTES
from tests.chaos.fleet import Fleet

# How long runs take, in words × milliseconds: most are short, a few outlive a session timeout.
RUNS: tuple[tuple[float, int, int], ...] = ((0.80, 3, 15), (0.15, 10, 60), (0.04, 20, 150), (0.01, 20, 500))


@dataclass
class Load:
    """Requests sent so far."""

    fleet: Fleet
    seed: int
    sessions: int
    acknowledged: list[str] = field(default_factory=list)
    unsure: list[str] = field(default_factory=list)
    """Sent without an answer: they may have a result or none."""

    async def run(self, count: int, *, per_second: float) -> None:
        """Send `count` requests at this rate, each session's in order."""
        rng = random.Random(self.seed)
        begun, sending = time.monotonic(), set[asyncio.Task[None]]()
        tails: dict[str, asyncio.Task[None]] = {}
        async with RequestProducer(
            lambda: idempotent_producer(self.fleet.connection, max_request_size=MAX_REQUEST_BYTES), self.fleet.topics
        ) as producer:
            for number in range(count):
                request = self._request(number, rng)
                session = request.session_id or ""
                task = asyncio.create_task(self._send(producer, request, tails.get(session)))
                tails[session] = task
                sending.add(task)
                task.add_done_callback(sending.discard)
                await asyncio.sleep(max(0.0, begun + number / per_second - time.monotonic()))
            while sending:
                await asyncio.wait(set(sending))

    def _request(self, number: int, rng: random.Random) -> InvokeRequest:
        _, words, delay_ms = rng.choices(RUNS, [weight for weight, _, _ in RUNS])[0]
        text = " ".join(f"w{number}-{word}" for word in range(words))
        options: dict[str, JsonValue] = {"text": text, "delay_ms": delay_ms}
        return InvokeRequest(
            id=f"run-{self.seed}-{number}",
            session_id=f"session-{rng.randrange(self.sessions)}",
            messages=(Message.of_text("user", f"request {number}"),),
            parameters=AgentParameters(harness=HarnessChoice(kind="scripted", options=options)),
        )

    async def _send(self, producer: RequestProducer, request: InvokeRequest, before: asyncio.Task[None] | None) -> None:
        if before is not None:
            await asyncio.wait({before})
        try:
            await producer.submit(request)
        except (KafkaError, TimeoutError):
            self.unsure.append(request.id or "")
        else:
            self.acknowledged.append(request.id or "")


@dataclass
class Watcher:
    """Notes when each result became visible."""

    fleet: Fleet
    seen: dict[str, float] = field(default_factory=dict)
    twice: list[str] = field(default_factory=list)

    async def watch(self) -> None:
        """Until cancelled. A broker that is away is waited for."""
        async with self.fleet.results() as results:
            while True:
                for value in await results.values():
                    run_id = json.loads(value)["run_id"]
                    if run_id in self.seen:
                        self.twice.append(run_id)
                    self.seen[run_id] = time.monotonic()

    def silences(self) -> list[float]:
        """Seconds between two results that follow each other, longest first."""
        times = sorted(self.seen.values())
        return sorted((later - earlier for earlier, later in pairwise(times)), reverse=True)
