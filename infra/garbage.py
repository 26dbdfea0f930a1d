"""How often Python looks for garbage in a worker."""

import gc
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

THRESHOLDS: Final = (100_000, 20, 20)
"""Objects that are new until the youngest are looked through, and how many such rounds until the next generations are.

With Python's own (700, 10, 10) a worker with a backlog of thousands of requests spent a third of its processor time on
walking through them: 2.3 ms for a scripted run, 1.5 without a collector, 1.9 so; with exported spans, which are many
objects, 3.5 and 2.4. That was with 50,000, when a run cost four times as much as now; since then 100,000 took another
0.1 ms off a run with exported spans (0.63 of 0.74), and nothing without. A look through as many takes 4 ms, in which
the loop stands still: 200,000 took no more off, and 9 ms."""


@contextmanager
def seldom_collected() -> Iterator[None]:
    """Within, what exists already (the modules, a third of a million objects) is never looked at, the rest seldom.

    Only cycles wait for the collector; everything else is freed at once as always.
    """
    usual = gc.get_threshold()
    gc.collect()
    gc.freeze()
    gc.set_threshold(*THRESHOLDS)
    try:
        yield
    finally:
        gc.set_threshold(*usual)
        gc.unfreeze()
