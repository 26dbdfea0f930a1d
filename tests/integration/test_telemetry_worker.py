"""A worker as a process of its own, with a collector that takes its spans, and with one that hangs."""

import json
import re
from pathlib import Path

import httpx
import pytest

from agentstream.consumers.client import AgentClient
from agentstream.infra.telemetry.span_lines import read_spans
from agentstream.producers.connection import KafkaConnection
from agentstream.schemas.requests import AgentParameters, HarnessChoice
from tests.integration.test_cli import Terminal, scripted, scripted_worker
from tests.integration.test_http_port import free_port
from tests.support.otlp_receiver import Manner, OtlpReceiver, otlp_receiver
from tests.support.waiting import patience

KEY = "canary-secret-0123456789"
pytestmark = pytest.mark.kafka


@pytest.fixture
async def terminal(kafka: str, topics: str, tmp_path: Path, receiver: OtlpReceiver) -> Terminal:
    variables = {
        **scripted_worker(kafka, topics),
        "AGENTSTREAM_HTTP_PORT": str(free_port()),
        "AGENTSTREAM_TRACE_DIR": str(tmp_path / "spans"),
        "AGENTSTREAM_LOG_FORMAT": "json",
        "OTEL_BSP_SCHEDULE_DELAY": "3600000",
        "OTEL_METRIC_EXPORT_INTERVAL": "200",
    }
    one = Terminal(home=tmp_path, variables=variables)
    assert (await one.type("topics", "apply", "--partitions", "1")).code == 0
    return Terminal(home=tmp_path, variables={**variables, "OTEL_EXPORTER_OTLP_ENDPOINT": receiver.endpoint})


async def test_a_command_says_in_one_line_which_spans_it_lost(terminal: Terminal) -> None:
    # The log says so of a worker, and is silent in a command for people.
    down = {**terminal.variables, "OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:1"}
    done = await Terminal(home=terminal.home, variables=down).type("invoke", "hi", "--no-wait", "--json")
    assert (done.code, list(json.loads(done.out))) == (0, ["submitted"])
    assert done.err.count("\n") == 1
    assert done.err.startswith("spans are lost on the way to http://127.0.0.1:1/v1/traces: 1 of 1 since the start")


async def test_the_spans_and_measurements_of_a_run_are_wherever_they_are_asked_for(
    terminal: Terminal, receiver: OtlpReceiver, tmp_path: Path
) -> None:
    at = f"http://127.0.0.1:{terminal.variables['AGENTSTREAM_HTTP_PORT']}"
    async with terminal.worker() as worker, httpx.AsyncClient(base_url=at) as probe:
        done = await terminal.type("invoke", "hi", "--json", *scripted(text="hello"))
        result = json.loads(done.out.splitlines()[-1])["result"]

        def arrived() -> set[str]:
            spans = [each for each in receiver.spans if each.trace_id == result["trace_id"]]
            return {each.name for each in spans if each.resource["service.name"] == "agentstream-worker"}

        # Flushed because the run ended: the worker lives on, and its processor's clock is at an hour.
        await receiver.until(lambda: any(name.startswith("process ") for name in arrived()), "its spans arrive")
        assert any(name.startswith("invoke_agent") for name in arrived())
        await receiver.until(
            lambda: any(point.name == "messaging.process.duration" for point in receiver.points), "so do measurements"
        )
        page = await probe.get("/metrics")
        assert page.headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"
        assert "messaging_process_duration_seconds_count" in page.text
        assert 'otel_sdk_exporter_span_exported_total{error_type="",otel_component_name="default"}' in page.text
        telemetry = (await probe.get("/status")).json()["telemetry"]
        assert telemetry["default"]["to"] == f"{receiver.endpoint}/v1/traces"
        assert (telemetry["default"]["losing"], telemetry["default"]["failed"]) == (None, 0)
        assert 0 < telemetry["default"]["exported"] <= len(receiver.spans)
        kept = {line.name for line in read_spans(tmp_path / "spans") if line.trace_id == result["trace_id"]}
        assert kept >= arrived()
        worker.terminate()
        async with patience():
            assert await worker.wait() == 0


async def test_a_collector_that_hangs_changes_no_result_and_is_one_line(
    terminal: Terminal, receiver: OtlpReceiver
) -> None:
    receiver.manner = Manner(hang=True)
    hanging = Terminal(
        home=terminal.home,
        variables={**terminal.variables, "OTEL_EXPORTER_OTLP_TIMEOUT": "3600", "OTEL_METRICS_EXPORTER": "none"},
    )
    async with hanging.worker() as worker:
        for number in range(3):
            done = await terminal.type("invoke", "hi", "--json", *scripted(text=f"answer {number}"))
            result = json.loads(done.out.splitlines()[-1])["result"]
            assert (done.code, result["status"]) == (0, "completed")
            assert result["messages"][-1]["parts"][0]["content"] == f"answer {number}"
        await receiver.until(lambda: receiver.hanging >= 1, "an export hangs")
        worker.terminate()
        async with patience():
            _, log = await worker.communicate()
        assert worker.returncode == 0
    assert receiver.hanging >= 1  # the process ended without its answer
    lines = [json.loads(line) for line in log.decode().splitlines()]
    about = [line["event"] for line in lines if "telemetry" in line["logger"] or "opentelemetry" in line["logger"]]
    (line,) = about
    assert line.startswith(f"spans are lost on the way to {receiver.endpoint}/v1/traces: ")
    lost, of_all = re.findall(r"(\d+) of (\d+) since the start", line)[0]
    assert lost == of_all
    assert line.endswith(f"(refused or not answered: 0, no room to wait: 0, not sent before the end: {lost})")
    assert int(lost) >= 9, "three runs of at least three spans"


async def test_a_request_that_names_a_place_for_its_spans_is_seen_there_and_one_that_names_none_is_not(
    terminal: Terminal, receiver: OtlpReceiver, kafka: str, topics: str
) -> None:
    with otlp_receiver() as tenant:
        place = f'[trace_targets.tenant]\nendpoint = "{tenant.endpoint}"\nauthorization = "Bearer {KEY}"\n'
        (terminal.home / "agentstream.toml").write_text(place)
        connection = KafkaConnection(bootstrap_servers=kafka)
        async with terminal.worker() as worker, AgentClient(connection=connection, topic_prefix=topics) as client:
            options = AgentParameters(harness=HarnessChoice(kind="scripted", options={"text": "hi"}))
            theirs = await client.invoke("hi", parameters=options, trace_target="tenant")
            ours = await client.invoke("hi", parameters=options)
            nobodys = await client.invoke("hi", parameters=options, trace_target="tenant2")
            await receiver.until(lambda: any(each.trace_id == theirs.trace_id for each in tenant.spans), "it arrives")
            worker.terminate()
            async with patience():
                _, log = await worker.communicate()
        assert (theirs.status, ours.status) == ("completed", "completed")
        assert nobodys.error is not None
        assert (nobodys.error.code, nobodys.status) == ("unsupported", "failed")
        assert {each.trace_id for each in tenant.spans} == {theirs.trace_id}
        assert {each.trace_id for each in receiver.spans} >= {theirs.trace_id, ours.trace_id, nobodys.trace_id}
        of_theirs = {each.name for each in receiver.spans if each.trace_id == theirs.trace_id}
        assert {each.name for each in tenant.spans} == of_theirs
        assert {asked.headers["authorization"] for asked in tenant.requests} == {f"Bearer {KEY}"}
        assert KEY not in log.decode()
