import gc

from agentstream.infra.garbage import THRESHOLDS, seldom_collected


class Knot:
    """A cycle: nothing but the collector frees it."""

    freed = 0

    def __init__(self) -> None:
        self.self = self

    def __del__(self) -> None:
        Knot.freed += 1


def test_the_collector_comes_seldom_within_and_as_before_afterwards() -> None:
    usual = gc.get_threshold()
    with seldom_collected():
        assert gc.get_threshold() == THRESHOLDS
        assert gc.get_freeze_count() > 0
    assert gc.get_threshold() == usual
    assert gc.get_freeze_count() == 0


def test_what_became_garbage_within_is_still_found() -> None:
    with seldom_collected():
        before = Knot.freed
        kept: list[list[None]] = []
        for _ in range(THRESHOLDS[0]):
            Knot()
            kept.append([])  # something new that lives: the collector counts what is made less what is freed
        assert Knot.freed > before
