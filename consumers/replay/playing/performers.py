"""Where the runs of a replay happen: in this process, or behind Kafka. Either way `Runs.execute` runs them."""

import time
from collections.abc import Mapping
from contextlib import aclosing
from dataclasses import replace
from typing import Protocol

from agentstream.consumers.admitted import Admitted
from agentstream.consumers.agent_config import NotAdmitted, WorkerAgentConfig, admit
from agentstream.consumers.client import AgentClient
from agentstream.consumers.runs import Runs
from agentstream.consumers.tracing.process import ProcessSpan
from agentstream.producers.failed_results import failed_without_run
from agentstream.schemas.recordings import ReplayMode
from agentstream.schemas.records import Position
from agentstream.schemas.requests import InvokeRequest
from agentstream.schemas.results import InvokeResult
from agentstream.schemas.trace import TraceContext

_TOPIC = "replay"
"""Where runs in this process are said to lie: on no topic."""


class Performer(Protocol):
    """Runs requests. Used by many at once."""

    async def perform(self, request: InvokeRequest) -> InvokeResult:
        """Run it to its result, whatever that is. Cancelled, it ends within two seconds and leaves nothing running."""
        ...


class InProcess:
    """Runs requests here. `config` as a worker's; its harnesses are open, and those of `runs`.

    With `any_tool` each run may ask for what it likes: only where tools do not run by themselves.
    """

    def __init__(self, runs: Runs, config: WorkerAgentConfig, *, any_tool: bool = False) -> None:
        self._runs = runs
        self._config = config
        self._any_tool = any_tool
        self._offset = 0

    async def perform(self, request: InvokeRequest) -> InvokeResult:
        """As the port says."""
        trace, now_ms = TraceContext.fresh(), time.time_ns() // 1_000_000
        config = self._config
        if self._any_tool:
            config = replace(config, tools=config.tools | set(request.parameters.tools or ()))
        parameters = admit(request, config)
        if isinstance(parameters, NotAdmitted):
            return failed_without_run(
                run_id=request.id or "",
                session_id=request.session_id or "",
                partition=0,
                claim=1,
                problem=parameters.problem,
                timestamp_ms=now_ms,
                trace=trace,
            )
        self._offset += 1
        # Nobody reads the events of a run here; to number and cut them took 40 % of its time.
        parameters = replace(parameters, stream="none")
        admitted = Admitted(
            request=request,
            position=Position(topic=_TOPIC, partition=0, offset=self._offset),
            timestamp_ms=now_ms,
            process=ProcessSpan.none(trace),
            claim=1,
            parameters=parameters,
        )
        result: InvokeResult | None = None
        async with aclosing(self._runs.execute(admitted)) as produced:
            async for item in produced:
                if isinstance(item, InvokeResult):
                    result = item
        if result is None:
            raise RuntimeError("a run ended without a result though nobody drained it")
        return result


class ThroughKafka:
    """Sends requests to workers by the topics of the client. Closes nothing.

    A request that was sent before, by a replay that was killed, is not run again: its result is found.
    """

    def __init__(self, client: AgentClient) -> None:
        self._client = client

    async def perform(self, request: InvokeRequest) -> InvokeResult:
        """As the port says; raises what `AgentClient.invoke` does."""
        return await self._client.invoke(request)


def config_of(config: WorkerAgentConfig, mode: ReplayMode, tools: frozenset[str]) -> WorkerAgentConfig:
    """What a replay's runs may do. Where tools do not run by themselves, they may all be asked for (`tools`)."""
    if mode == "live":
        return config
    allowed: Mapping[str, object] = {"tools": config.tools | tools}
    return replace(config, **allowed, **({"credentials": {}} if mode == "frozen" else {}))  # type: ignore[arg-type]
