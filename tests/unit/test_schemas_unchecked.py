"""Models of our own making, put together without their checks, are like those that were checked."""

import pytest

from agentstream.schemas.base import WireModel, unchecked
from agentstream.schemas.events import EPOCH, PartDelta, TurnStarted
from agentstream.schemas.results import HarnessInfo

_DELTA = {"turn": 1, "message_id": "m", "part_index": 0, "part_type": "text", "delta": "hi"}
_part_delta, _harness_info = unchecked(PartDelta), unchecked(HarnessInfo)


@pytest.mark.parametrize(
    ("made", "checked"),
    [
        (unchecked(TurnStarted)(), TurnStarted()),
        (_part_delta(delta="hi", part_type="text", part_index=0, message_id="m", turn=1), PartDelta(**_DELTA)),  # type: ignore[arg-type]  # as it comes
        (_harness_info(kind="k"), HarnessInfo(kind="k")),
        (_harness_info(kind="k", versions={"v": "1"}), HarnessInfo(kind="k", versions={"v": "1"})),
    ],
)
def test_one_that_nothing_checked_is_equal_and_is_written_alike(made: WireModel, checked: WireModel) -> None:
    assert made == checked
    assert made.to_bytes() == checked.to_bytes()
    assert made.model_copy() == checked
    assert repr(made) == repr(checked)
    assert type(made).model_validate(made.model_dump()) == checked


def test_a_default_that_is_made_anew_is_shared_by_no_two() -> None:
    _harness_info(kind="a").versions["v"] = "1"
    assert _harness_info(kind="b").versions == {}


def test_an_event_that_is_numbered_takes_nothing_from_the_one_it_was_made_of() -> None:
    event = _part_delta(turn=1, message_id="m", part_index=0, part_type="text", delta="hi")
    event.numbered(7, EPOCH)
    assert event.seq == -1
    checked = PartDelta(message_id="m", part_index=0, part_type="text", delta="hi")
    assert {"seq", "time"} <= checked.numbered(7, EPOCH).model_fields_set
    assert "seq" not in checked.model_fields_set
