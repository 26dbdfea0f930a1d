"""Derived ids: the same on both sides of the pipe, in every process, and never reused."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentstream.consumers.tracing.ids import (
    process_id_of,
    span_id_of,
    trace_id_of,
    wanted_span_id,
    wanted_trace_id,
    wanting,
)
from agentstream.schemas.records import Position
from tests.architecture.sources import ROOT
from tests.support.spans import Recorder

GOLDEN = json.loads((ROOT / "infra/pi-sidecar/test/span-ids.json").read_text())


@pytest.mark.parametrize("row", GOLDEN)
def test_the_sidecar_derives_the_same_id_for_a_model_call(row: dict[str, str | int]) -> None:
    assert span_id_of(str(row["attempt"]), "chat", int(row["call"])) == row["span"]


def test_the_derivation_never_changes() -> None:
    # Ids stand on the log and in backends: a new release must name the spans that the one before left.
    where = Position(topic="agent.invoke-requests", partition=3, offset=17)
    assert trace_id_of(where, 1_000) == "2909b5de0b6c7ee1324f22101db1ac3d"
    assert process_id_of(where, 77) == "7c006af1e56dd676"
    assert span_id_of("0190", "agent", 0) == "31098e02d2ccd54c"


@given(st.lists(st.tuples(st.uuids().map(str), st.sampled_from(("agent", "turn", "chat", "tool")), st.integers(0, 99))))
def test_different_spans_have_different_ids_that_are_valid(names: list[tuple[str, str, int]]) -> None:
    ids = {span_id_of(attempt, key, number): (attempt, key, number) for attempt, key, number in names}  # type: ignore[arg-type]
    assert len(ids) == len(set(names))
    assert all(len(found) == 16 and int(found, 16) for found in ids)


def test_what_is_wanted_holds_for_one_span_and_no_other() -> None:
    recorder = Recorder()
    tracer = recorder.provider.get_tracer("test")
    with wanting(trace_id="a" * 32, span_id="b" * 16):
        tracer.start_span("wanted").end()
    tracer.start_span("drawn").end()
    assert (wanted_trace_id.get(), wanted_span_id.get()) == (None, None)
    wanted, drawn = recorder.spans
    assert (wanted.trace_id, wanted.span_id) == ("a" * 32, "b" * 16)
    assert drawn.trace_id != wanted.trace_id
    assert drawn.span_id != wanted.span_id
