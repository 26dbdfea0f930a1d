"""How long runs take, learned as they end. Pure."""

from collections import OrderedDict

WEIGHT = 0.1
"""Of each new run: after twenty runs nine tenths of what is believed is theirs."""
MAX_KINDS = 256
"""Pairs of harness and model remembered; the one unused for longest goes."""


class Durations:
    """A moving mean per harness and model, and one over all for what was never seen."""

    def __init__(self) -> None:
        self._means: OrderedDict[tuple[str, str | None], float] = OrderedDict()
        self._overall: float | None = None

    def learn(self, kind: str, model: str | None, seconds: float) -> None:
        """A run of this kind took so long, its retries included."""
        before = self._means.get((kind, model))
        self._means[kind, model] = _moved(before, seconds)
        self._means.move_to_end((kind, model))
        if len(self._means) > MAX_KINDS:
            self._means.popitem(last=False)
        self._overall = _moved(self._overall, seconds)

    def expected(self, kind: str | None = None, model: str | None = None) -> float:
        """Seconds that such a run will take; 0 while nothing has ended yet."""
        known = None if kind is None else self._means.get((kind, model))
        return (self._overall or 0.0) if known is None else known


def _moved(before: float | None, seconds: float) -> float:
    return seconds if before is None else before + WEIGHT * (seconds - before)
