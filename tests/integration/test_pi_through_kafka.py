"""The real Pi behind a real Kafka, with the offline model as its provider: what callers see when things go wrong."""

import json
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from pydantic import JsonValue

from agentstream.consumers.agent_config import DEFAULT_LIMITS, WorkerAgentConfig
from agentstream.consumers.harness.pi import PiHarness
from agentstream.consumers.harness.port import Credentials
from agentstream.consumers.redaction import Redactor
from agentstream.infra.offline_model import OfflineModel
from agentstream.producers.kafka import idempotent_producer
from agentstream.producers.requests import RequestProducer
from agentstream.schemas.requests import InvokeRequest
from agentstream.schemas.topics import MAX_REQUEST_BYTES
from tests.chaos.audit import Json, Log, read_log, violations
from tests.chaos.fleet import Fleet, fleet_of
from tests.chaos.inside import plan_of, serving
from tests.integration.pi_fixtures import ALL_TOOLS, KEY, credentials, marked, settings


@dataclass(frozen=True, kw_only=True)
class Stage:
    """A worker with Pi that serves, and the topics before and behind it."""

    fleet: Fleet
    model: OfflineModel
    pi: PiHarness

    async def ask(self, *bodies: dict[str, JsonValue]) -> list[Json]:
        """Send requests and give their results in the same order."""
        requests = [InvokeRequest.model_validate(body) for body in bodies]
        async with self.fleet.results() as results:
            async with RequestProducer(
                lambda: idempotent_producer(self.fleet.connection, max_request_size=MAX_REQUEST_BYTES),
                self.fleet.topics,
            ) as producer:
                submitted = [await producer.submit(request) for request in requests]
            for one in submitted:
                await results.until_run(one.run_id)
        by_run = {line.body["run_id"]: line.body for line in (await self.log()).results}
        return [by_run[one.run_id] for one in submitted]

    async def log(self) -> Log:
        return await read_log(self.fleet.bootstrap_servers, self.fleet.topics, self.fleet.group_id)


@pytest.fixture
async def stage(kafka: str, topics: str, tmp_path: Path) -> AsyncIterator[Stage]:
    async with OfflineModel() as model, PiHarness(settings(tmp_path), redactor=Redactor((KEY,))) as pi:
        known: dict[str, Credentials] = {
            "offline": credentials(model),
            "refused": credentials(model, key="sk-wrong"),
            "plain": Credentials(name="plain", provider="openai", api_key="sk-of-nobody"),
            "nowhere": credentials("http://127.0.0.1:1/v1"),
        }
        config = WorkerAgentConfig(
            harnesses={"pi": pi},
            default_harness="pi",
            default_model="offline/demo",
            tools=frozenset(ALL_TOOLS),
            limits=DEFAULT_LIMITS,
            credentials=known,
        )
        plan = plan_of(kafka, topics, config=config, harnesses={"pi": pi}, secrets=(KEY, "sk-wrong"))
        async with fleet_of(kafka, topics, tmp_path, workers=0, partitions=2) as fleet, serving(plan):
            yield Stage(fleet=fleet, model=model, pi=pi)


def asking(text: str, **parameters: JsonValue) -> dict[str, JsonValue]:
    once: dict[str, JsonValue] = {"limits": {"max_attempts": 1, "first_event_ms": 4000, "idle_ms": 1500}}
    return {
        "messages": [{"role": "user", "content": text}],
        "parameters": {"credentials": "offline", **once, **parameters},
    }


async def test_a_request_becomes_live_deltas_and_one_result(stage: Stage) -> None:
    (result,) = await stage.ask(asking("[[say: one two three]]"))
    assert result["status"] == "completed"
    assert result["messages"][-1]["parts"] == [{"type": "text", "content": "one two three"}]
    assert result["harness"]["kind"] == "pi"
    assert set(result["harness"]["versions"]) >= {"pi", "node"}
    assert result["usage"][0]["model"] == "demo"
    assert "cost" not in result, "no price is known, and a made-up 0 would be believed"
    log = await stage.log()
    assert violations(log, [result["run_id"]]) == []
    types = [event["type"] for line in log.deltas for event in line.body["events"]]
    assert types[0] == "run.started"
    assert types[-1] == "run.ended"
    assert "part.delta" in types


async def test_tools_run_and_their_messages_stand_in_the_result(stage: Stage) -> None:
    (result,) = await stage.ask(
        asking('[[tool:bash {"command": "echo made by bash > note; cat note"}]] [[say: done]]', tools=["bash"])
    )
    assert [message["role"] for message in result["messages"]] == ["assistant", "tool", "assistant"]
    call, answer = result["messages"][0]["parts"][-1], result["messages"][1]["parts"][0]
    assert call["type"] == "tool_call"
    assert answer["id"] == call["id"]
    assert "made by bash" in json.dumps(answer["response"])


async def test_each_way_a_provider_fails_has_its_code(stage: Stage) -> None:
    cases = {
        "provider_auth": asking("[[fail:401]]"),
        "rate_limited": asking("[[fail:429 retry_after=1]]"),
        "provider_error": asking("[[fail:500]]"),
        "idle_timeout": asking("[[say: one two three four]] [[fail:stall]]"),
    }
    results = await stage.ask(
        *cases.values(),
        asking("[[fail:cut]] [[say: one two three four five six]]"),
        asking("hello", credentials="nowhere"),
        asking("hello", credentials="nobody-has-these"),
        asking("hello", model="openai/no-such-model", credentials="plain"),
        asking("[[fail:404]]"),
    )
    codes = [result.get("error", {}).get("code", result["status"]) for result in results]
    assert codes[:3] == ["provider_auth", "rate_limited", "provider_error"]
    assert codes[3] in ("idle_timeout", "first_event_timeout")
    assert codes[4] == "provider_error"
    assert codes[5] in ("provider_error", "model_unavailable")
    assert codes[6] == "provider_auth"
    assert codes[7:] == ["model_unavailable", "model_unavailable"]
    assert all(result["status"] == "failed" for result in results)


async def test_a_failure_that_passes_is_tried_again_in_the_lane(stage: Stage) -> None:
    (result,) = await stage.ask(asking("[[fail:500 times=1]] [[say: back again]]", limits={"max_attempts": 3}))
    assert result["status"] == "completed"
    assert result["attempt"] == 2
    log = await stage.log()
    assert violations(log, [result["run_id"]]) == []
    assert "run.retrying" in [event["type"] for line in log.deltas for event in line.body["events"]]


async def test_the_key_of_the_provider_is_on_no_topic_and_no_child_is_left(stage: Stage) -> None:
    leak = '[[tool:bash {"command": "env; cat /proc/$PPID/environ /proc/$PPID/cmdline"}]]'
    await stage.ask(
        asking(leak, tools=["bash"]), asking(f"my key is {KEY}"), asking("[[fail:401]]", credentials="refused")
    )
    log = await stage.log()
    written = [*log.results, *log.deltas, *log.finished, *log.dead_letters]
    spilt = [line for line in written if KEY.encode() in line.value or KEY in json.dumps(line.headers)]
    # A caller who writes a key into a request finds it in the dead letter of that request, which is its own bytes.
    assert [line for line in spilt if line not in log.dead_letters] == []
    sidecar = stage.pi.sidecar_pid
    assert [process for process in marked(stage.pi.mark) if process.pid != sidecar] == []
