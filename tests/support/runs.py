"""Events and results of one made-up run, as short as a test wants them."""

from collections.abc import Iterable
from datetime import UTC, datetime

from agentstream.schemas.events import AnyEvent, StreamEvents
from agentstream.schemas.messages import Message
from agentstream.schemas.requests import AgentParameters
from agentstream.schemas.results import InvokeResult

NOW = datetime(2026, 1, 1, tzinfo=UTC)


def attempt_name(claim: int, attempt: int) -> str:
    return f"0190-{claim}-{attempt}"


def flush(
    events: Iterable[AnyEvent], *, run_id: str = "run", claim: int = 1, attempt: int = 1, first_seq: int = 0
) -> StreamEvents:
    """One record of the delta topic, with the events numbered."""
    return StreamEvents(
        run_id=run_id,
        session_id="session",
        claim=claim,
        attempt=attempt,
        attempt_id=attempt_name(claim, attempt),
        first_seq=first_seq,
        events=tuple(event.numbered(first_seq + place, NOW) for place, event in enumerate(events)),
    )


def result_of(
    *,
    run_id: str = "run",
    claim: int = 1,
    attempt: int | None = 1,
    last_seq: int = 0,
    text: str = "ok",
    partition: int = 0,
) -> InvokeResult:
    """A completed result; without an attempt, a failed run's."""
    return InvokeResult(
        run_id=run_id,
        session_id="session",
        partition=partition,
        status="failed" if attempt is None else "completed",
        messages=(Message.of_text("assistant", text),) if attempt is not None else (),
        claim=claim,
        attempt=attempt or 0,
        attempt_id=None if attempt is None else attempt_name(claim, attempt),
        last_seq=last_seq,
        deltas="complete",
        parameters=AgentParameters(),
        ended_at=NOW,
    )
