"""What Arize Phoenix makes of our spans: worker and caller as processes, the real Pi, a real Phoenix."""

import json
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from agentstream.infra.offline_model import OfflineModel
from tests.backends.phoenix import Phoenix, Shown, phoenix
from tests.integration.test_cli import Terminal
from tests.support.cluster import Cluster, cluster_of

pytestmark = [pytest.mark.backend, pytest.mark.kafka, pytest.mark.timeout(600)]
CONTENT = {"OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT": "true"}
TOOL_THEN_ANSWER = '[[usage: prompt=1000 cached=200 completion=50]][[tool:bash {"command": "echo well"}]][[say: done]]'


@pytest.fixture(scope="module")
def backend(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Phoenix]:
    with phoenix(tmp_path_factory.mktemp("phoenix")) as one:
        yield one


@pytest.fixture
async def cluster(kafka: str, topics: str) -> AsyncIterator[Cluster]:
    async with cluster_of(kafka, topics) as one:
        yield one


@dataclass(frozen=True, kw_only=True)
class Traced:
    """A run, as the caller and as Phoenix have it."""

    result: dict[str, Any]
    spans: list[Shown]

    @property
    def tree(self) -> list[str]:
        """Kinds and names, children indented below their parents, errors marked."""
        ids = {span.span_id for span in self.spans}

        def lines(above: str | None, depth: int) -> Iterator[str]:
            for span in self.spans:
                if (span.parent_id if span.parent_id in ids else None) == above:
                    yield f"{'  ' * depth}{span.kind} {span.name}{' !' if span.status == 'ERROR' else ''}"
                    yield from lines(span.span_id, depth + 1)

        return list(lines(None, 0))

    def of_kind(self, kind: str) -> list[Shown]:
        """All of one kind, in the order in which they began."""
        return [span for span in self.spans if span.kind == kind]


@dataclass(frozen=True, kw_only=True)
class Stage:
    """A worker and a caller, both of whose spans go to Phoenix."""

    terminal: Terminal
    backend: Phoenix
    cluster: Cluster

    async def invoke(self, text: str, arguments: Sequence[str] = ()) -> Traced:
        """Ask by the command, and wait for the span that ends last."""
        done = await self.terminal.type("invoke", text, "--json", *arguments)
        result = json.loads(done.out.splitlines()[-1])["result"]
        spans = await self.backend.spans(result["trace_id"], until=f"process {self.cluster.topics.invoke_requests}")
        prefix = self.cluster.topics.prefix
        return Traced(result=result, spans=[span.without(prefix) for span in spans])


@asynccontextmanager
async def stage(cluster: Cluster, backend: Phoenix, home: Path, **variables: str) -> AsyncIterator[Stage]:
    async with OfflineModel() as model:
        (home / "agentstream.toml").write_text(
            f'[credentials.offline]\nprovider = "offline"\napi_key = "key"\nbase_url = "{model.base_url}"\n'
            'api = "openai-completions"\ninput_price = "2"\noutput_price = "10"\n'
        )
        terminal = Terminal(
            home=home,
            variables={
                "KAFKA_BOOTSTRAP_SERVERS": cluster.bootstrap_servers,
                "AGENTSTREAM_TOPIC_PREFIX": cluster.topics.prefix,
                "AGENTSTREAM_GROUP_ID": cluster.group_id,
                "AGENTSTREAM_HARNESSES": "pi,scripted",
                "AGENTSTREAM_MODEL": "offline/demo",
                "AGENTSTREAM_TOOLS": "bash,read",
                "OTEL_EXPORTER_OTLP_ENDPOINT": backend.endpoint,
                "OTEL_METRICS_EXPORTER": "none",
                **variables,
            },
        )
        async with terminal.worker():
            yield Stage(terminal=terminal, backend=backend, cluster=cluster)


async def test_a_run_is_one_tree_of_kinds_that_it_knows(cluster: Cluster, backend: Phoenix, tmp_path: Path) -> None:
    async with stage(cluster, backend, tmp_path) as on:
        run = await on.invoke(TOOL_THEN_ANSWER, ["--set", "tools=bash", "--session", "s"])
    assert run.tree == [
        "CHAIN send invoke-requests",
        "  CHAIN process invoke-requests",
        "    AGENT invoke_agent pi",
        "      CHAIN turn 1",
        "        LLM chat demo",
        "        TOOL execute_tool bash",
        "      CHAIN turn 2",
        "        LLM chat demo",
        "    UNKNOWN send assistant-messages",
    ]
    assert {span.attributes["llm.model_name"] for span in run.of_kind("LLM")} == {"demo"}
    assert [span.attributes["tool.name"] for span in run.of_kind("TOOL")] == ["bash"]


@pytest.mark.parametrize("names", ["", "openinference"])
async def test_tokens_are_counted_once(cluster: Cluster, backend: Phoenix, tmp_path: Path, names: str) -> None:
    async with stage(cluster, backend, tmp_path, AGENTSTREAM_TRACE_NAMES=names) as on:
        run = await on.invoke(TOOL_THEN_ANSWER, ["--set", "tools=bash"])
    (usage,) = run.result["usage"]
    calls = run.of_kind("LLM")
    for attribute, used in {
        "llm.token_count.prompt": "input_tokens",
        "llm.token_count.completion": "output_tokens",
        "llm.token_count.prompt_details.cache_read": "cached_input_tokens",
    }.items():
        assert sum(call.attributes.get(attribute, 0) for call in calls) == usage[used] > 0, attribute
    assert await backend.totals(run.result["trace_id"]) == (usage["input_tokens"], usage["output_tokens"])


async def test_the_runs_of_a_session_are_one_session(cluster: Cluster, backend: Phoenix, tmp_path: Path) -> None:
    session = f"{cluster.topics.prefix}session"
    async with stage(cluster, backend, tmp_path) as on:
        runs = [await on.invoke(text, ["--session", session, "--harness", "scripted"]) for text in ("one", "two")]
    assert await backend.session(session) == {run.result["trace_id"] for run in runs}


async def test_what_failed_is_an_error_with_its_reason(cluster: Cluster, backend: Phoenix, tmp_path: Path) -> None:
    async with stage(cluster, backend, tmp_path) as on:
        run = await on.invoke("[[fail:401]]")
    assert run.tree == [
        "CHAIN send invoke-requests",
        "  CHAIN process invoke-requests !",
        "    AGENT invoke_agent pi !",
        "      CHAIN turn 1 !",
        "        LLM chat demo !",
        "    UNKNOWN send assistant-messages",
        "    UNKNOWN send dead-letters",
    ]
    (agent,) = run.of_kind("AGENT")
    assert agent.attributes["error.type"] == run.result["error"]["code"]
    assert agent.status_detail


async def test_content_is_read_as_messages_arguments_and_results(
    cluster: Cluster, backend: Phoenix, tmp_path: Path
) -> None:
    async with stage(cluster, backend, tmp_path, **CONTENT) as on:
        run = await on.invoke(TOOL_THEN_ANSWER, ["--set", "tools=bash"])
    first, last = run.of_kind("LLM")
    (tool,), (agent,) = run.of_kind("TOOL"), run.of_kind("AGENT")
    assert first.attributes["llm.input_messages.0.message.content"] == TOOL_THEN_ANSWER
    called = "llm.output_messages.0.message.tool_calls.0.tool_call.function"
    assert first.attributes[f"{called}.name"] == "bash"
    assert json.loads(first.attributes[f"{called}.arguments"]) == {"command": "echo well"}
    assert last.attributes["llm.output_messages.0.message.content"] == "done"
    assert last.attributes["llm.input_messages.2.message.role"] == "tool"
    assert tool.attributes["tool.parameters.command"] == "echo well"
    assert "well" in tool.attributes["output.value"]
    assert agent.attributes["llm.output_messages.1.message.content"] == "done"
