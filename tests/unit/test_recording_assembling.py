"""One run of its request, its result and records of events: whose count, which are missing."""

from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentstream.consumers.replay.recording.assembling import assemble
from agentstream.schemas.events import StreamEvents
from agentstream.schemas.messages import Message
from agentstream.schemas.recordings import Gap, RecordedRun
from agentstream.schemas.requests import InvokeRequest
from agentstream.schemas.results import InvokeResult
from tests.support.outputs import answer
from tests.support.runs import flush, result_of

REQUEST = InvokeRequest(id="run", session_id="session", messages=(Message.of_text("user", "hi"),))
EVENTS = answer("one ", "two ", "three")
LAST = len(EVENTS) - 1


def run_of(result: InvokeResult | None, *records: StreamEvents) -> RecordedRun:
    return assemble(REQUEST, result, records, source=None, turn=0)


def record(first: int, end: int, *, attempt: int = 1) -> StreamEvents:
    return flush(EVENTS[first:end], attempt=attempt, first_seq=first)


def partial(last_seq: int) -> InvokeResult:
    return result_of(last_seq=last_seq).model_copy(update={"deltas": "partial"})


@given(st.lists(st.tuples(st.integers(0, LAST), st.integers(1, LAST + 1)), max_size=12), st.randoms())
def test_however_records_are_cut_repeated_and_mixed_each_event_counts_once(
    cuts: list[tuple[int, int]], random: Random
) -> None:
    records = [record(first, end) for first, end in cuts if first < end]
    records += [record(0, end, attempt=2) for _, end in cuts]
    random.shuffle(records)
    there = {event.seq for one in records if one.attempt == 1 for event in one.events}
    run = run_of(result_of(attempt=1, last_seq=LAST), *records)
    assert [event.seq for event in run.events] == sorted(there)
    expected = () if len(there) == LAST + 1 else ("events_incomplete",) if there else ("no_events",)
    assert run.gaps == expected


@pytest.mark.parametrize(
    ("result", "records", "gaps"),
    [
        (None, [record(0, LAST + 1)], ("no_result",)),
        (result_of(attempt=None, last_seq=-1), [], ()),
        (result_of(last_seq=LAST), [record(0, LAST + 1)], ()),
        (result_of(last_seq=LAST), [], ("no_events",)),
        (result_of(last_seq=LAST), [record(0, LAST)], ("events_incomplete",)),
        (result_of(last_seq=LAST), [record(1, LAST + 1)], ("events_incomplete",)),
        (partial(LAST - 1), [record(0, LAST)], ("events_incomplete",)),
        (partial(-1), [], ("no_events",)),
        # More events than the result knows of must not make up for one that is missing.
        (result_of(last_seq=LAST - 1), [record(0, 2), record(3, LAST + 1)], ("events_incomplete",)),
    ],
)  # fmt: skip
def test_what_is_missing_is_said(
    result: InvokeResult | None, records: list[StreamEvents], gaps: tuple[Gap, ...]
) -> None:
    run = run_of(result, *records)
    assert run.gaps == gaps
    assert result is not None or run.events == ()
