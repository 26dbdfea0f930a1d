"""Two ways to read JSON, a quick one for what holds nothing wrong and a careful one, are one to whoever asks."""

import json
from dataclasses import asdict, replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentstream.schemas.bounds import DEFAULT_BOUNDS, Bounds
from agentstream.schemas.parsing import parse_carefully, parse_object
from agentstream.schemas.quick_parsing import parse_quickly
from tests.golden.bad_input import BAD_INPUT, OK
from tests.golden.files import samples

TEXTS = st.text(st.characters(exclude_categories=()), max_size=8).map(json.dumps) | st.sampled_from(
    ['"id"', '"a\\"b:"', '"\\ud800"', '"\\uDC00"', '"\\ud83d\\ude00"', '"\\\\ud800"', '"é😀"', '"\\u0000"', '"{[,"']
)
NUMBERS = st.integers().map(str) | st.sampled_from(
    ["1e999", "-1e999", "1.50", "-0", "01", "NaN", "-Infinity", "9" * 70]
)
SPACE = st.sampled_from(["", "", " ", "\n", "\u00a0"])


def arrays(inner: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    return st.builds(lambda items, space: f"[{space}{','.join(items)}]", st.lists(inner, max_size=5), SPACE)


def objects(inner: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    """Objects in which, unlike in any dict, a name may stand twice."""
    pairs = st.lists(st.builds(lambda name, space, value: f"{name}{space}:{value}", TEXTS, SPACE, inner), max_size=5)
    return pairs.map(lambda members: f"{{{','.join(members)}}}")


VALUES = st.recursive(
    TEXTS | NUMBERS | st.sampled_from(["true", "null"]), lambda inner: arrays(inner) | objects(inner), max_leaves=30
)
NARROW = st.builds(
    Bounds,
    max_bytes=st.integers(0, 200),
    max_depth=st.integers(1, 6),
    max_nodes=st.integers(1, 30),
    max_number_chars=st.integers(1, 12),
    max_string_chars=st.integers(0, 60),
    max_name_chars=st.integers(0, 8),
)
BOUNDS = st.just(DEFAULT_BOUNDS) | NARROW | st.builds(Bounds, max_depth=st.integers(1, 6), max_nodes=st.integers(1, 9))


def same(value: bytes | None, bounds: Bounds) -> None:
    expected, answer = parse_carefully(value, bounds), parse_object(value, bounds)
    assert answer == expected
    assert repr(answer) == repr(expected)  # 1, 1.0 and true are equal, and -0.0 is 0.0


@given(st.one_of(VALUES, objects(VALUES)).map(lambda text: text.encode(errors="surrogatepass")), BOUNDS)
def test_quick_and_careful_say_the_same_of_any_json(value: bytes, bounds: Bounds) -> None:
    same(value, bounds)


@given(st.sampled_from([OK, *(json.dumps(sample.value).encode() for sample in samples("invoke-request"))]), st.data())
def test_quick_and_careful_say_the_same_of_a_request_cut_or_changed_anywhere(value: bytes, data: st.DataObject) -> None:
    at = data.draw(st.integers(0, len(value)))
    same(value[:at] + data.draw(st.binary(max_size=3)) + value[at + 1 :], data.draw(BOUNDS))


@pytest.mark.parametrize("value", [value for value, _, _ in BAD_INPUT.values()], ids=BAD_INPUT.keys())
def test_quick_and_careful_say_the_same_of_bad_input(value: bytes | None) -> None:
    same(value, DEFAULT_BOUNDS)


@pytest.mark.parametrize(
    ("value", "bounds"),
    [
        (b'{"x":' + b"[" * 5 + b"]" * 5 + b"}", Bounds(max_depth=6)),
        (b'{"x":{"y":[[[{}]]]},"z":"' + b"-" * 1_024 + b'"}', Bounds(max_depth=6)),
        (b'{"x":[1,1,1,1]}', Bounds(max_nodes=6)),
        (b'{"x":[' + b"1," * 997 + b"1]}", Bounds(max_nodes=1_000)),
        (b'{"x":12}', Bounds(max_number_chars=2)),
        (b'{"x":-1}', Bounds(max_number_chars=2)),
        (b'{"x":1.5}', Bounds(max_number_chars=3)),
        (b'{"x":"abc"}', Bounds(max_string_chars=3)),
        (b'{"abc":1}', Bounds(max_name_chars=3)),
        (b'{"x":[{"y":1},{"abc":1}]}', Bounds(max_name_chars=3)),
        (b'{"x":1}', Bounds(max_bytes=7)),
    ],
)
def test_both_keep_to_each_bound_and_not_to_less(value: bytes, bounds: Bounds) -> None:
    for name, most in asdict(bounds).items():
        if most != getattr(DEFAULT_BOUNDS, name):
            assert parse_object(value, bounds) == parse_carefully(value, bounds) == parse_object(value)
            less = replace(bounds, **{name: most - 1})
            assert parse_object(value, less) == parse_carefully(value, less) != parse_object(value)


def test_what_callers_send_is_read_the_quick_way() -> None:
    # Else all of the above would also hold of a quick way that never answers.
    for sample in samples("invoke-request"):
        assert parse_quickly(json.dumps(sample.value, ensure_ascii=False).encode(), DEFAULT_BOUNDS) == sample.value
