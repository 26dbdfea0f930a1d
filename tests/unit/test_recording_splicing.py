"""A line made of the bytes that were read says what one made of the values would say, or is not made."""

import json
from collections.abc import Callable
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentstream.consumers.redaction import Redactor
from agentstream.consumers.replay.recording.assembling import assemble
from agentstream.consumers.replay.recording.redacting import Rules
from agentstream.consumers.replay.recording.splicing import splice
from agentstream.consumers.replay.recording.spool import RunRow
from agentstream.schemas.events import StreamEvents
from agentstream.schemas.messages import Message
from agentstream.schemas.recordings import RecordedRun, SourceRecord
from agentstream.schemas.requests import InvokeRequest
from agentstream.schemas.results import InvokeResult
from tests.support.outputs import answer
from tests.support.runs import flush, result_of

SOURCE = SourceRecord(topic='odd"topic', partition=0, offset=7, timestamp_ms=1)
TEXT = answer("one ", '"events":[{}]', "three")
LAST = len(TEXT) - 1
Values = list[bytes]


def request_of(session: str) -> InvokeRequest:
    return InvokeRequest(id="run", session_id=session, messages=(Message.of_text("user", session),))


def row_of(values: Values, result: InvokeResult, session: str = "session") -> RunRow:
    return RunRow(
        run_id="run",
        session_id=session,
        place=1,
        turn=3,
        partition=0,
        offset=7,
        timestamp_ms=1,
        request=request_of(session).to_bytes(),
        result=result.to_bytes(),
        events=values,
    )


def records(*cuts: int, session: str = "session") -> list[StreamEvents]:
    edges = [0, *cuts, LAST + 1]
    made = (flush(TEXT[first:end], first_seq=first) for first, end in pairwise(edges))
    return [one.model_copy(update={"session_id": session}) for one in made]


@given(st.sets(st.integers(1, LAST)), st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=20))
def test_however_a_whole_run_was_cut_its_line_is_the_one_its_values_would_make(cuts: set[int], session: str) -> None:
    events = records(*sorted(cuts), session=session)
    result = result_of(last_seq=LAST).model_copy(update={"session_id": session})
    spliced = splice(row_of([one.to_bytes() for one in events], result, session), SOURCE)
    assert spliced is not None
    run, line = spliced
    made = assemble(request_of(session), result, events, source=SOURCE, turn=3)
    assert (line, run) == (made.to_bytes(), RecordedRun.model_validate_json(line))


def rewritten(change: Callable[[dict[str, object]], object]) -> Callable[[Values], Values]:
    def of_first(values: Values) -> Values:
        document = json.loads(values[0])
        change(document)
        return [json.dumps(document, separators=(",", ":")).encode(), *values[1:]]

    return of_first


@pytest.mark.parametrize(
    "spoil",
    [
        pytest.param(lambda values: values[:1], id="the end is missing"),
        pytest.param(lambda values: values[1:], id="the beginning is missing"),
        pytest.param(lambda values: [*values[:1], *values], id="a record stands twice"),
        pytest.param(lambda values: values[::-1], id="records in another order"),
        pytest.param(lambda values: [], id="no records"),
        pytest.param(lambda values: [values[0], b""], id="an empty record"),
        pytest.param(lambda values: [values[0], values[1][:-1]], id="a torn record"),
        pytest.param(lambda values: [values[0], values[1][:-1] + b"x"], id="a record with a spoilt end"),
        pytest.param(rewritten(lambda found: found.update(attempt=2)), id="of another attempt"),
        pytest.param(lambda values: [values[0], values[1].replace(b"-1-1", b"-1-2")], id="the rest of another attempt"),
        pytest.param(rewritten(lambda found: found.update(first_seq="x")), id="no number"),
        pytest.param(rewritten(lambda found: found.update(more=[{}])), id="a newer field behind the events"),
        pytest.param(lambda values: [json.dumps(json.loads(one)).encode() for one in values], id="written otherwise"),
        pytest.param(lambda values: [one.replace(b"2026-", b"20x6-") for one in values], id="a time that is none"),
    ],
)
def test_what_is_unusual_or_lacks_something_is_looked_at_more_closely(spoil: Callable[[Values], Values]) -> None:
    values = [one.to_bytes() for one in records(2)]
    result = result_of(last_seq=LAST)
    assert splice(row_of(values, result), SOURCE) is not None
    assert splice(row_of(spoil(values), result), SOURCE) is None


def test_an_attempt_that_was_not_published_whole_or_is_not_the_results_is_looked_at_more_closely() -> None:
    values = [one.to_bytes() for one in records(2)]
    whole = result_of(last_seq=LAST)
    for change in ({"deltas": "partial"}, {"attempt_id": "0190-1-2"}, {"last_seq": LAST + 1}, {"claim": 2}):
        assert splice(row_of(values, whole.model_copy(update=change)), SOURCE) is None


def test_a_secret_in_a_field_of_a_newer_version_does_not_leave_with_the_bytes() -> None:
    document = json.loads(records()[0].to_bytes())
    document["events"][0]["newer"] = "a secret of ours"
    spliced = splice(row_of([json.dumps(document, separators=(",", ":")).encode()], result_of(last_seq=LAST)), SOURCE)
    assert spliced is not None
    assert b"a secret of ours" in spliced[1]
    _, line = Rules(Redactor(["a secret of ours"])).line(*spliced)
    assert b"a secret of ours" not in line
