"""One recorded run, made of its request, its result and the records of its attempt's events. Pure."""

from collections.abc import Iterable

from agentstream.schemas.events import ReadEvent, StreamEvents
from agentstream.schemas.recordings import Gap, RecordedRun, SourceRecord
from agentstream.schemas.requests import InvokeRequest
from agentstream.schemas.results import InvokeResult


def assemble(
    request: InvokeRequest,
    result: InvokeResult | None,
    records: Iterable[StreamEvents],
    *,
    source: SourceRecord | None,
    turn: int,
) -> RecordedRun:
    """The run with what is missing of it. `records` are of any attempts and in any order; `request` has its ids.

    The reader's rule, with the result known: only its attempt counts, and each `seq` once, since a producer that was
    replaced sends again. Without a result nobody can say which attempt would have counted, and no events are kept.
    """
    events: tuple[ReadEvent, ...] = ()
    gaps: tuple[Gap, ...] = ("no_result",)
    if result is not None:
        events = _events(record for record in records if record.attempt_id == result.attempt_id)
        gaps = gaps_of(result, events)
    # All of it was validated a moment ago; doing it again for every event is a third of what a recording costs.
    return RecordedRun.model_construct(
        run_id=request.id or "",
        session_id=request.session_id or "",
        turn=turn,
        source=source,
        request=request,
        result=result,
        events=events,
        gaps=gaps,
    )


def _events(records: Iterable[StreamEvents]) -> tuple[ReadEvent, ...]:
    by_seq = {event.seq: event for record in records for event in record.events}
    return tuple(by_seq[seq] for seq in sorted(by_seq))


def gaps_of(result: InvokeResult, events: tuple[ReadEvent, ...]) -> tuple[Gap, ...]:
    """What is missing of the events of an attempt. Each `seq` stands there once."""
    # `seq` has no gaps within an attempt, so that counting them is enough; `deltas: partial` says that some were
    # never published, and those may come after `last_seq`.
    missing = sum(event.seq <= result.last_seq for event in events) < result.last_seq + 1
    if not events and (missing or result.deltas == "partial"):
        return ("no_events",)
    return ("events_incomplete",) if missing or result.deltas == "partial" else ()
