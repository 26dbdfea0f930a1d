"""How things stand, looked at once a second on the event loop and read by whoever collects, in a thread of his own."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import Final, Protocol, runtime_checkable

import psutil
from opentelemetry.metrics import CallbackOptions, Meter, Observation

from agentstream.consumers.admitted import Admitted
from agentstream.consumers.harness.port import Harness
from agentstream.consumers.metrics import names
from agentstream.consumers.metrics.names import MetricName
from agentstream.consumers.partition import Partition
from agentstream.consumers.worker import Worker
from agentstream.schemas import span_names

LOOK_SECONDS: Final = 1.0


@runtime_checkable
class HasSidecar(Protocol):
    """A harness with a process of its own."""

    @property
    def sidecar_pid(self) -> int | None:
        """The process that runs now, if one does."""
        ...

    @property
    def sidecar_starts(self) -> int:
        """How many were started."""
        ...


@dataclass(frozen=True, kw_only=True, slots=True)
class Snapshot:
    """How a worker stood when it was looked at."""

    in_flight: int = 0
    """Runs under way."""
    waiting: Mapping[str, int] = field(default_factory=dict)
    """Requests that wait for their turn, by partition."""
    lag: Mapping[str, int] = field(default_factory=dict)
    """Records between what is finished and the end, by partition."""
    oldest_s: float = 0.0
    """Age of the oldest request without a result."""
    work_s: float = 0.0
    """Seconds of work that wait."""
    open_partitions: int = 0
    """Partitions that are worked."""
    closed_partitions: int = 0
    """Partitions assigned and not, or not yet, open."""
    held_bytes: int = 0
    """Bytes of requests held."""
    deltas_dropped: int = 0
    """Attempts whose deltas ended early."""
    sidecar_bytes: Mapping[str, int] = field(default_factory=dict)
    """Resident memory by harness."""
    sidecar_restarts: Mapping[str, int] = field(default_factory=dict)
    """By harness."""


class Gauges:
    """One worker's. They show it as it was at the last look: see `watching`."""

    def __init__(
        self, worker: Worker, harnesses: Mapping[str, Harness], *, now: Callable[[], float] = time.time
    ) -> None:
        """`now` is the wall clock, in seconds since 1970."""
        self._worker = worker
        self._harnesses = harnesses
        self._now = now
        self.snapshot = Snapshot()
        meter = worker.engine.metrics.meter
        one, many = _observe_one(self), _observe_many(self)
        _gauge(meter, names.IN_FLIGHT, one(lambda now: now.in_flight))
        _gauge(meter, names.WAITING, many(span_names.PARTITION, lambda now: now.waiting))
        _gauge(meter, names.LAG, many(span_names.PARTITION, lambda now: now.lag))
        _gauge(meter, names.OLDEST_OPEN, one(lambda now: now.oldest_s))
        _gauge(meter, names.WORK_WAITING, one(lambda now: now.work_s))
        _gauge(meter, names.HELD_BYTES, one(lambda now: now.held_bytes))
        _gauge(meter, names.PARTITIONS, many(names.STATE, _by_state))
        _gauge(meter, names.SIDECAR_MEMORY, many(names.HARNESS, lambda now: now.sidecar_bytes))
        _counter(meter, names.SIDECAR_RESTARTS, many(names.HARNESS, lambda now: now.sidecar_restarts))
        _counter(meter, names.DELTAS_DROPPED, one(lambda now: now.deltas_dropped))

    @asynccontextmanager
    async def watching(self) -> AsyncIterator[None]:
        """Look once a second while the body runs."""
        looking = asyncio.create_task(self._watch(), name="gauges")
        try:
            yield
        finally:
            looking.cancel()
            with suppress(asyncio.CancelledError):
                await looking

    async def _watch(self) -> None:
        while True:
            self.look()
            await asyncio.sleep(LOOK_SECONDS)

    def look(self) -> None:
        """Take a snapshot. Call it from the event loop."""
        engine, partitions = self._worker.engine, self._worker.partitions
        claims = [(each, each.claim) for each in partitions if each.claim is not None]
        requested = [ms for _, claim in claims if (ms := claim.waiting_room.oldest_ms) is not None]
        waiting = [(each, list(claim.waiting_room.waiting())) for each, claim in claims]
        self.snapshot = Snapshot(
            in_flight=sum(claim.running for _, claim in claims),
            waiting=_bounded((each.number, len(runs)) for each, runs in waiting),
            lag=_bounded((each.number, each.lag or 0) for each, _ in claims),
            oldest_s=max(0.0, self._now() - min(requested) / 1000) if requested else 0.0,
            work_s=sum(self._work(each, runs) for each, runs in waiting),
            open_partitions=len(claims),
            closed_partitions=len(partitions) - len(claims),
            held_bytes=engine.intake.held_bytes,
            deltas_dropped=engine.deltas.dropped,
            sidecar_bytes={kind: _resident(each.sidecar_pid) for kind, each in self._sidecars()},
            sidecar_restarts={kind: max(0, each.sidecar_starts - 1) for kind, each in self._sidecars()},
        )

    def _work(self, partition: Partition, waiting: Iterable[Admitted]) -> float:
        """Seconds: of the runs that wait, by what their like took, and of the records not read yet, by the mean."""
        expected, end = self._worker.engine.metrics.durations.expected, self._worker.source.seen_end(partition.number)
        known = sum(expected(each.parameters.choice.kind, each.parameters.model) for each in waiting)
        if end is None or partition.claim is None:
            return known
        return known + max(0, end - partition.claim.ledger.next_offset) * expected()

    def _sidecars(self) -> list[tuple[str, HasSidecar]]:
        return [(kind, each) for kind, each in self._harnesses.items() if isinstance(each, HasSidecar)]


_Read = Callable[[Snapshot], float]
_ReadMany = Callable[[Snapshot], Mapping[str, int]]
_Callback = Callable[[CallbackOptions], Iterable[Observation]]


def _observe_one(gauges: Gauges) -> Callable[[_Read], _Callback]:
    return lambda read: lambda _: [Observation(read(gauges.snapshot))]


def _observe_many(gauges: Gauges) -> Callable[[str, _ReadMany], _Callback]:
    return lambda label, read: (
        lambda _: [Observation(value, {label: name}) for name, value in read(gauges.snapshot).items()]
    )


def _gauge(meter: Meter, metric: MetricName, callback: _Callback) -> None:
    meter.create_observable_gauge(metric.name, [callback], metric.unit, metric.description)


def _counter(meter: Meter, metric: MetricName, callback: _Callback) -> None:
    meter.create_observable_counter(metric.name, [callback], metric.unit, metric.description)


def _by_state(now: Snapshot) -> Mapping[str, int]:
    return {"open": now.open_partitions, "closed": now.closed_partitions}


def _bounded(values: Iterable[tuple[int, int]]) -> dict[str, int]:
    """By partition, the rest in one: a backend keeps a series for each."""
    found: dict[str, int] = {}
    for number, value in sorted(values):
        name = str(number) if len(found) < names.MAX_PARTITION_LABELS else names.OTHER_PARTITIONS
        found[name] = found.get(name, 0) + value
    return found


def _resident(pid: int | None) -> int:
    if pid is None:
        return 0
    try:
        return int(psutil.Process(pid).memory_info().rss)
    except psutil.Error:
        return 0  # it has just ended
