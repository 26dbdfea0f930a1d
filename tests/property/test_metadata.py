"""Whatever stands in the books, the metadata holds it or says what to read again; whatever stands in the metadata is
read or refused."""

import contextlib
import json
from random import Random

from hypothesis import given
from hypothesis import strategies as st

from agentstream.consumers.metadata import (
    MAX_METADATA,
    CommitState,
    OpenOffset,
    UnreadableMetadata,
    decode,
    encode,
)

OWNERS = st.text("0123456789abcdef", max_size=12)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=6,
)


@st.composite
def states(draw: st.DrawFn) -> CommitState:
    chance: Random = draw(st.randoms(use_true_random=False))
    count = draw(st.sampled_from([0, 1, 2, 10, 500, 2_500]))
    span = draw(st.integers(max(count, 1), max(count, 1) * 200))
    first = draw(st.integers(0, 2**62))
    offsets = sorted(first + distance for distance in chance.sample(range(span), count))
    started, struck = draw(st.sampled_from([0.0, 0.1, 1.0])), draw(st.sampled_from([0.0, 0.02, 1.0]))
    entries = {
        offset: OpenOffset(
            started=chance.random() < started, strikes=chance.choice([1, 2, 3]) * (chance.random() < struck)
        )
        for offset in offsets
    }
    after = first + span + draw(st.integers(0, 10))
    lowest = min(offsets, default=after)
    return CommitState(
        offset=lowest,
        next_offset=after,
        open=entries,
        claim=draw(st.integers(0, 2**53)),
        owner=draw(OWNERS),
        commit=draw(st.integers(0, 2**31)),
        released=draw(st.booleans()),
        index_until=draw(st.sampled_from([0, lowest + 1, after + 1_000])),
    )


@given(states())
def test_the_next_owner_finds_every_open_offset_or_reads_it_again(state: CommitState) -> None:
    text = encode(state)
    assert len(text) <= MAX_METADATA
    found = decode(state.offset, text)
    assert found.open == {offset: entry for offset, entry in state.open.items() if offset < found.next_offset}
    assert (found.claim, found.owner, found.commit, found.released) == (
        state.claim,
        state.owner,
        state.commit,
        state.released,
    )
    if len(found.open) == len(state.open):
        assert found == state
    else:
        assert found.next_offset < state.next_offset
        assert found.index_until >= state.next_offset


@given(
    st.integers(0, 2**62),
    st.text(max_size=MAX_METADATA) | st.binary(max_size=200).map(lambda raw: raw.decode("latin1")),
)
def test_any_text_is_read_or_unreadable(offset: int, text: str) -> None:
    with contextlib.suppress(UnreadableMetadata):
        decode(offset, text)


@given(states(), st.data())
def test_metadata_damaged_anywhere_is_read_or_unreadable(state: CommitState, data: st.DataObject) -> None:
    text = encode(state)
    at = data.draw(st.integers(0, len(text) - 1))
    damaged = text[:at] + data.draw(st.text(max_size=3)) + text[at + data.draw(st.integers(0, 20)) :]
    try:
        found = decode(state.offset, damaged)
    except UnreadableMetadata:
        return
    assert found.next_offset >= state.offset
    assert all(state.offset <= offset < found.next_offset for offset in found.open)


@given(states(), st.sampled_from("vcoknrpsxw"), JSON)
def test_a_field_of_another_kind_is_read_or_unreadable(state: CommitState, name: str, value: object) -> None:
    fields = {**json.loads(encode(state)), name: value}
    with contextlib.suppress(UnreadableMetadata):
        decode(state.offset, json.dumps(fields))
