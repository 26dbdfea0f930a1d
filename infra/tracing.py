"""What a worker's spans are made with, as its plan and the environment say."""

import logging
import os
from collections.abc import Callable, Mapping
from typing import Final

from opentelemetry.trace import TracerProvider

from agentstream.consumers.log_scan import LogScan
from agentstream.consumers.redaction import Redactor
from agentstream.consumers.tracing.content import Content
from agentstream.consumers.tracing.lost import ReadDeltas
from agentstream.consumers.tracing.spans import SpanMaker
from agentstream.producers.connection import KafkaConnection
from agentstream.schemas.records import Record

log = logging.getLogger(__name__)

CAPTURE: Final = "OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT"
MAX_RECORDS_AGAIN: Final = 20_000
"""Records of a partition's deltas that a new owner looks at for attempts that were lost: some seconds' reading."""
SCOPE: Final = "agentstream"


def wants_content(environment: Mapping[str, str] | None = None) -> bool:
    """Whether messages, arguments and results are to stand in spans: OpenTelemetry's own variable and its values."""
    variables = os.environ if environment is None else environment
    return variables.get(CAPTURE, "").strip().lower() in {"true", "span_only", "span_and_event"}


def span_maker(  # noqa: PLR0913 - what a plan says of spans
    provider: TracerProvider,
    *,
    group_id: str,
    redactor: Redactor,
    flush: Callable[[], None],
    content: bool,
    names: frozenset[str],
    agent_name: str | None = None,
) -> SpanMaker:
    """What spans are made with. `names`: of `prompt_tokens` and `openinference`, what is written as well.

    `agent_name`: what the agent is called; None: as its harness.
    """
    return SpanMaker(
        tracer=provider.get_tracer(SCOPE),
        group_id=group_id,
        agent_name=agent_name,
        redact=redactor.text,
        content=Content(redactor) if content else None,
        older_token_names="prompt_tokens" in names,
        openinference="openinference" in names,
        flush=flush,
    )


def deltas_reader(connection: KafkaConnection, topic: str) -> ReadDeltas:
    """Reads the newest of a partition's deltas again."""

    async def read(partition: int, since_ms: int, seen: Callable[[Record], bool]) -> None:
        scan = LogScan(connection, topic, last=MAX_RECORDS_AGAIN, progress=log.debug, committed=False)
        async with scan:
            await scan.run(await scan.since(since_ms, partition), seen)

    return read
