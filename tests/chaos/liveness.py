"""How long after a fault results flow again."""

from bisect import bisect_right
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import ceil

from tests.chaos.mixed_load import Sent
from tests.chaos.nemesis import Done

SHORT_S = 1.0


@dataclass(frozen=True, kw_only=True)
class Recovery:
    """What one fault cost."""

    kind: str
    """The fault's."""
    partition: int
    """The one that came back last."""
    seconds: float
    """See `recoveries`."""


def recoveries(done: Iterable[Done], sent: Mapping[str, Sent], seen: Mapping[str, float]) -> list[Recovery]:
    """Of each fault, the seconds from `healed_at` until results flow again.

    They flow again when *every* partition that owed results at `healed_at` has shown one since, to a read_committed
    reader: the slowest partition counts. A partition owes results if it holds an acknowledged request without one whose
    run takes less than a second and is not in a session with a longer one under way: the wait for that would not be the
    fault's. Nothing is taken off for faults that follow before it has recovered, though they begin its wait anew; only
    the seconds in which another fault is being done (a broker that is down, say) are not counted: nobody could serve
    then. A fault after which no partition owed anything has recovered at once, and a partition that never showed a
    result again counts as an endless wait.
    """
    faults = list(done)
    results: dict[int, list[float]] = defaultdict(list)
    for run_id, at in sorted(seen.items(), key=lambda item: item[1]):
        if run_id in sent:
            results[sent[run_id].partition].append(at)
    found = []
    for fault in faults:
        others = [(other.began_at, other.healed_at) for other in faults if other is not fault]
        waits = {
            partition: _wait(fault.healed_at, results[partition], others)
            for partition in _owing(fault.healed_at, sent, seen)
        }
        last = max(waits, key=lambda each: waits[each], default=-1)
        found.append(Recovery(kind=fault.fault.kind, partition=last, seconds=waits.get(last, 0.0)))
    return found


def _owing(at: float, sent: Mapping[str, Sent], seen: Mapping[str, float]) -> set[int]:
    waiting = [one for run_id, one in sent.items() if one.at < at < seen.get(run_id, float("inf"))]
    held = {one.session for one in waiting if one.seconds >= SHORT_S}
    return {one.partition for one in waiting if one.session not in held}


def _wait(healed_at: float, results: Sequence[float], others: Iterable[tuple[float, float]]) -> float:
    place = bisect_right(results, healed_at)
    if place == len(results):
        return float("inf")
    back = results[place]
    excused = sum(max(0.0, min(back, end) - max(healed_at, begin)) for begin, end in others)
    return back - healed_at - excused


def percentile(values: Sequence[float], share: float) -> float:
    """The smallest value that so large a share does not exceed; 0 of none."""
    ordered = sorted(values)
    return ordered[max(0, ceil(round(share * len(ordered), 6)) - 1)] if ordered else 0.0
