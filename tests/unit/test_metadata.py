"""The ledger as it travels in the commit's metadata: what it looks like, what is refused."""

import base64
import json
import zlib
from random import Random

import pytest

from agentstream.consumers.metadata import (
    MAX_METADATA,
    MAX_OPEN,
    CommitState,
    OpenOffset,
    UnreadableMetadata,
    decode,
    encode,
)

STATE = CommitState(
    offset=1_000,
    next_offset=1_010,
    open={
        1_000: OpenOffset(started=True, strikes=2),
        1_003: OpenOffset(),
        1_009: OpenOffset(started=True),
    },
    claim=1_795_000_000_123,
    owner="0123456789ab",
    commit=17,
)


def packed(data: bytes) -> str:
    return base64.urlsafe_b64encode(zlib.compress(data, 9, wbits=-15)).decode().rstrip("=")


def body(**fields: object) -> str:
    return json.dumps({"v": 1, "c": 5, "o": "owner", "n": 0, **fields})


def test_what_one_owner_leaves_the_next_finds() -> None:
    assert decode(1_000, encode(STATE)) == STATE


def test_two_thousand_open_offsets_scattered_over_26_000_take_less_than_1_900_characters() -> None:
    for seed in range(20):
        scattered = sorted(Random(seed).sample(range(26_000), 2_000))
        state = CommitState(
            offset=scattered[0],
            next_offset=26_000,
            open={offset: OpenOffset() for offset in scattered},
            claim=1_795_000_000_123,
            owner="0123456789ab",
            commit=99_999,
        )
        text = encode(state)
        assert len(text) <= 1_900
        assert decode(state.offset, text) == state


def test_empty_metadata_is_a_state_with_nothing_open_and_no_owner() -> None:
    assert decode(7, "") == CommitState(offset=7, next_offset=7)


def test_unknown_fields_are_ignored() -> None:
    fields = json.loads(encode(STATE))
    assert decode(1_000, json.dumps({**fields, "future": {"deep": [1, 2]}, "z": None})) == STATE


@pytest.mark.parametrize("version", [0, 2, 1.5, "1", None, [1], {"major": 1}])
def test_an_unknown_version_is_unreadable_whatever_else_stands_there(version: object) -> None:
    fields = json.loads(encode(STATE))
    with pytest.raises(UnreadableMetadata, match="version"):
        decode(1_000, json.dumps({**fields, "v": version}))


@pytest.mark.parametrize(
    "text",
    [
        "x",
        "null",
        "1",
        "[]",
        '"v"',
        "{}",
        '{"v":1',
        # 4,096 opening brackets are more than the JSON parser's recursion bears.
        "[" * MAX_METADATA,
        body(n=None),
        body(n=-1),
        body(n="nothing"),
        # JSON has no infinity, Python's parser has, and int() of it is an OverflowError.
        '{"v":1,"c":5,"o":"owner","n":Infinity}',
        '{"v":1,"c":5,"o":"owner","n":1e999}',
        '{"v":1,"c":NaN,"o":"owner","n":0}',
        '{"v":1,"c":5,"n":0}',
        body(n=5, p=7),
        body(n=5, p=[1]),
        body(n=5, p="!!!!"),
        body(n=5, p="A"),
        body(n=5, p="ü"),
        body(n=5, p="AAAA"),
        body(n=5, s="AAAA"),
        body(n=5, x=5),
        body(n=5, x=[[0]]),
        body(n=5, x=[[0, -1]]),
        body(n=5, x=[["a", {}]]),
        body(w={}),
    ],
)
def test_damaged_metadata_is_unreadable_and_nothing_else(text: str) -> None:
    with pytest.raises(UnreadableMetadata):
        decode(1_000, text)


def test_a_list_of_offsets_that_was_cut_short_is_not_taken_for_a_short_list() -> None:
    # It would lose requests without a word: what is not listed as open below the next offset counts as finished.
    whole = zlib.compress(bytes(range(1, 100)), 9, wbits=-15)
    assert len(decode(0, body(n=100_000, p=packed(bytes(range(1, 100))))).open) == 99
    for kept in range(len(whole) - 4, len(whole)):
        cut = base64.urlsafe_b64encode(whole[:kept]).decode().rstrip("=")
        with pytest.raises(UnreadableMetadata):
            decode(0, body(n=100_000, p=cut))


def test_strange_characters_within_a_list_are_not_skipped() -> None:
    # Python's decoder passes over what is not base64, and would read another list out of the rest.
    text = packed(bytes(range(1, 100)))
    for strange in ("!", "\n", " ", "="):
        with pytest.raises(UnreadableMetadata):
            decode(0, body(n=100_000, p=text[:8] + strange * 4 + text[8:]))


def test_a_gap_that_was_cut_short_is_not_forgotten() -> None:
    with pytest.raises(UnreadableMetadata):
        decode(0, body(n=100, p=packed(b"\x01\x02\x83")))


def test_open_offsets_beyond_the_next_one_are_no_owners_work() -> None:
    with pytest.raises(UnreadableMetadata):
        decode(0, body(n=2, p=packed(b"\x00\x01")))
    assert set(decode(0, body(n=3, p=packed(b"\x00\x01"))).open) == {0, 2}


def test_a_bomb_of_a_million_offsets_is_refused() -> None:
    bomb = packed(b"\x00" * 999_999)
    assert len(bomb) < MAX_METADATA / 2
    with pytest.raises(UnreadableMetadata):
        decode(0, body(n=10**7, p=bomb))


def test_a_bomb_that_inflates_to_hundreds_of_megabytes_is_refused() -> None:
    with pytest.raises(UnreadableMetadata):
        decode(0, body(n=10**7, p=packed(b"\x00" * 3_000_000)))


def test_one_gap_of_a_million_bytes_is_refused_before_it_is_added_up() -> None:
    # Added up it is one number of 6 million bits, in as many steps: minutes in which the event loop stands still.
    with pytest.raises(UnreadableMetadata):
        decode(0, body(n=0, p=packed(b"\xff" * 900_000 + b"\x01")))
    with pytest.raises(UnreadableMetadata):
        decode(0, body(n=2**100, p=packed(b"\xff" * 11 + b"\x01")))


def test_too_many_open_offsets_lower_the_next_one_and_point_to_the_index() -> None:
    # Strikes are written out one by one, so these do not fit.
    entries = {offset: OpenOffset(started=True, strikes=1) for offset in range(0, 3_000, 3)}
    state = CommitState(offset=0, next_offset=5_000, open=entries, claim=9, owner="me", commit=3)
    text = encode(state)
    found = decode(0, text)
    assert len(text) <= MAX_METADATA
    assert 0 < len(found.open) < len(entries)
    assert found.next_offset == max(found.open) + 1
    assert found.index_until == 5_000, "what was finished above is not finished again"
    assert found.open == {offset: entry for offset, entry in entries.items() if offset < found.next_offset}


def test_what_is_written_can_be_read_however_many_are_open() -> None:
    # Neighbours pack so well that 30,000 fit into 200 characters, which the reader refused as a bomb.
    entries = {offset: OpenOffset() for offset in range(MAX_OPEN + 10_000)}
    found = decode(0, encode(CommitState(offset=0, next_offset=40_000, open=entries, owner="me")))
    assert 0 < len(found.open) <= MAX_OPEN
    assert (found.next_offset, found.index_until) == (max(found.open) + 1, 40_000)
