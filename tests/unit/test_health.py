"""What counts as progress, and what a probe is told; time is passed in."""

import asyncio
import http.client
import json
import threading
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, closing
from dataclasses import dataclass, field
from typing import cast

import pytest

from agentstream.consumers.coordinator import CoordinatorError
from agentstream.consumers.harness.port import Harness
from agentstream.consumers.harness.scripted import ScriptedHarness
from agentstream.consumers.health import COMMIT_SECONDS, LOOP_SECONDS, POLL_SECONDS, Health
from agentstream.consumers.worker import Worker
from agentstream.infra.http_port import HttpPort
from agentstream.infra.settings_file import SettingsError


@dataclass
class Outbox:
    uncommitted: int = 0


@dataclass
class Claim:
    outbox: Outbox = field(default_factory=Outbox)
    committed_at: float = 0.0


@dataclass
class Partition:
    number: int = 0
    claim: Claim | None = field(default_factory=Claim)
    closed_because: str | None = None


@dataclass
class Scene:
    """The part of a worker that is judged, and a clock."""

    now: float = 1_000.0
    polled_at: float | None = None
    stopping: bool = False
    partitions: list[Partition] = field(default_factory=lambda: [Partition()])
    assigned_once: asyncio.Event = field(default_factory=asyncio.Event)
    brokers_answer: bool = True
    asked: asyncio.Event = field(default_factory=asyncio.Event)

    def verdict(self, health: Health) -> tuple[str | None, str | None]:
        """Look; give why it is not ready, and why it is stuck."""
        health.look()
        return health.unready, health.stuck

    async def ask(self) -> None:
        if not self.brokers_answer:
            raise CoordinatorError("connection refused")

    def health(self, harnesses: Mapping[str, Harness] | None = None) -> Health:
        scripted: Mapping[str, Harness] = {"scripted": ScriptedHarness()}
        return Health(cast("Worker", self), harnesses or scripted, self.ask, clock=lambda: self.now)

    def past(self, health: Health, seconds: float) -> None:
        """Time goes by, and the worker polls and is looked at all the while."""
        until = self.now + seconds
        while self.now < until:
            self.now = min(until, self.now + 1)
            self.polled_at = self.now
            health.look()


async def test_a_worker_is_ready_once_it_has_joined_and_brokers_and_harness_answer() -> None:
    scene = Scene()
    health = scene.health()
    assert health.unready == "the worker is starting"
    assert scene.verdict(health) == ("the worker has not joined its group yet", None)
    scene.assigned_once.set()
    assert scene.verdict(health) == ("the brokers were not asked yet", None)
    await health._ask()
    assert scene.verdict(health) == (None, None)
    scene.stopping = True
    assert scene.verdict(health) == ("the worker is stopping", None)


async def test_brokers_that_are_away_are_no_reason_to_replace_the_worker() -> None:
    scene = Scene(brokers_answer=False)
    scene.assigned_once.set()
    scene.partitions[0].claim = Claim(Outbox(3))
    health = scene.health()
    await health._ask()
    scene.past(health, 10 * COMMIT_SECONDS)
    assert scene.verdict(health) == ("no broker answers: connection refused", None)
    # From when they answer again, it has its time.
    scene.brokers_answer = True
    await health._ask()
    scene.past(health, COMMIT_SECONDS - 2)
    assert scene.verdict(health) == (None, None)
    scene.past(health, 3)
    assert scene.verdict(health)[1] == "partition 0: finished runs wait for 121 s to be committed"


async def test_commits_that_go_on_are_progress_however_much_waits() -> None:
    scene = Scene()
    claim = scene.partitions[0].claim = Claim(Outbox(100))
    health = scene.health()
    await health._ask()
    for _ in range(5):
        scene.past(health, COMMIT_SECONDS - 1)
        assert scene.verdict(health)[1] is None
        claim.committed_at = scene.now
    scene.past(health, COMMIT_SECONDS)
    assert scene.verdict(health)[1] is not None
    claim.outbox.uncommitted = 0
    assert scene.verdict(health)[1] is None


async def test_a_poll_loop_that_does_not_come_back_is_stuck_and_one_that_has_not_begun_is_not() -> None:
    scene = Scene()
    health = scene.health()
    scene.now += 10 * POLL_SECONDS
    assert scene.verdict(health)[1] is None
    scene.polled_at = scene.now
    scene.now += POLL_SECONDS
    assert scene.verdict(health)[1] == "nothing was polled for 60 s"


async def test_partitions_that_all_stay_closed_make_a_worker_unready_with_their_reason() -> None:
    scene = Scene(partitions=[Partition(claim=None), Partition(number=1, claim=None, closed_because="no such output")])
    scene.assigned_once.set()
    health = scene.health()
    await health._ask()
    assert scene.verdict(health)[0] == "none of its partitions is open: no such output"
    scene.partitions[0].claim = Claim()
    assert scene.verdict(health)[0] is None
    scene.partitions.clear()
    assert scene.verdict(health)[0] is None, "more workers than partitions: it stands by"


class Sick(ScriptedHarness):
    async def health(self) -> str | None:
        return "it has a cold"


async def test_a_worker_whose_harnesses_are_all_down_is_unready() -> None:
    scene = Scene()
    scene.assigned_once.set()
    health = scene.health({"sick": Sick()})
    await health._ask()
    health.look()
    assert health.unready == "harness sick: it has a cold"


@asynccontextmanager
async def answering(health: Health) -> AsyncIterator[int]:
    with closing(HttpPort("127.0.0.1", 0)) as port:
        async with port.answering(health):
            yield port.number


def get(port: int, path: str, method: str = "GET") -> tuple[int, dict[str, object]]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
    connection.request(method, path)
    answer = connection.getresponse()
    content = answer.read()
    connection.close()
    return answer.status, json.loads(content) if content else {}


async def test_an_event_loop_that_is_stuck_is_told_of_all_the_same() -> None:
    scene = Scene()
    health = scene.health()
    health.look()
    told: list[tuple[int, dict[str, object]]] = []
    async with answering(health) as port:
        assert (await asyncio.to_thread(get, port, "/livez")) == (200, {"ok": True, "reason": None})
        scene.now += LOOP_SECONDS + 1
        thread = threading.Thread(target=lambda: told.append(get(port, "/livez")))
        thread.start()
        thread.join()  # the loop stands still here
        assert told == [(503, {"ok": False, "reason": "the event loop has not turned for 31 s"})]


async def test_what_is_no_question_is_answered_without_words_about_our_code() -> None:
    async with answering(Scene().health()) as port:
        assert (await asyncio.to_thread(get, port, "/nope"))[0] == 404
        assert (await asyncio.to_thread(get, port, "/livez", "POST"))[0] == 405
        assert await asyncio.to_thread(get, port, "/livez", "HEAD") == (200, {})
        for request in (b"\x00\xff\r\n\r\n", b"GET\r\n\r\n", b"GET / HTTP/9.9\r\n\r\n", b"x" * 70_000 + b"\r\n\r\n"):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(request)
            said = (await reader.read()).decode()
            writer.close()
            assert "Traceback" not in said
            assert '"error": "bad request"' in said, said
        with pytest.raises(SettingsError, match="AGENTSTREAM_HTTP_PORT: cannot listen on"):
            HttpPort("127.0.0.1", port)


async def test_measurements_are_shown_where_they_are_kept_and_else_it_is_said_that_they_are_not() -> None:
    def page(port: int) -> tuple[int, str | None, bytes]:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
        connection.request("GET", "/metrics")
        answer = connection.getresponse()
        found = answer.status, answer.headers["Content-Type"], answer.read()
        connection.close()
        return found

    with closing(HttpPort("127.0.0.1", 0)) as port:
        async with port.answering(Scene().health(), dict, lambda: b"runs_total 3.0\n"):
            assert await asyncio.to_thread(page, port.number) == (
                200,
                "text/plain; version=0.0.4; charset=utf-8",
                b"runs_total 3.0\n",
            )
    async with answering(Scene().health()) as number:
        status, kind, content = await asyncio.to_thread(page, number)
        assert (status, kind) == (404, "application/json")
        assert b"OTEL_METRICS_EXPORTER" in content
