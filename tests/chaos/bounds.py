"""What the workers take of the machine while they run, and what they leave behind."""

import asyncio
import time
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median

import psutil

from tests.chaos.fleet import Fleet

EVERY_S = 5.0
MEBIBYTE = 1024 * 1024
MOST_RSS = 700 * MEBIBYTE
MOST_FDS = 1_000
MOST_THREADS = 100
GROWTH = 1.5
SLACK = {"rss": 64 * MEBIBYTE, "threads": 16, "fds": 100, "children": 4}
"""Added to what growth is allowed: caches fill, connections come and go."""
WARM_S = 60.0
"""A worker is not judged by its growth before it is so old: imports, first connections, the index of finished runs."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Sample:
    """One worker at one time."""

    at: float
    rss: int
    threads: int
    fds: int
    children: int


@dataclass
class Meter:
    """Looks at every worker every five seconds."""

    fleet: Fleet
    samples: dict[int, list[Sample]] = field(default_factory=lambda: defaultdict(list))
    """By process id."""

    async def watch(self) -> None:
        """Until cancelled."""
        while True:
            for worker in self.fleet.workers:
                if worker.returncode is None and (sample := _look(worker.pid)) is not None:
                    self.samples[worker.pid].append(sample)
            await asyncio.sleep(EVERY_S)

    @property
    def max_rss(self) -> int:
        """Bytes that the largest worker ever had."""
        return max((sample.rss for samples in self.samples.values() for sample in samples), default=0)

    def violations(self) -> list[str]:
        """Workers that took more than any worker needs, and those that grew and grew."""
        bounds = {"rss": MOST_RSS, "fds": MOST_FDS, "threads": MOST_THREADS}
        found = []
        for pid, samples in self.samples.items():
            for what, most in bounds.items():
                if (peak := max(int(getattr(sample, what)) for sample in samples)) > most:
                    found.append(f"worker {pid} had {peak} {what}; {most} are more than any needs")
            found += [f"worker {pid}: {what} grew {story}" for what, story in growth(samples).items()]
        return found


def growth(samples: Sequence[Sample]) -> dict[str, str]:
    """What grew without an end: the last quarter's median well above the second quarter's, of a worker that is warm."""
    warm = [sample for sample in samples if sample.at - samples[0].at > WARM_S]
    quarter = len(warm) // 4
    found: dict[str, str] = {}
    if quarter >= 5:
        for what, slack in SLACK.items():
            early = median(int(getattr(sample, what)) for sample in warm[quarter : 2 * quarter])
            late = median(int(getattr(sample, what)) for sample in warm[-quarter:])
            if late > GROWTH * early + slack:
                found[what] = f"from {early:.0f} to {late:.0f} in {warm[-1].at - warm[0].at:.0f} s"
    return found


def _look(pid: int) -> Sample | None:
    try:
        process = psutil.Process(pid)
        with process.oneshot():
            return Sample(
                at=time.monotonic(),
                rss=process.memory_info().rss,
                threads=process.num_threads(),
                fds=process.num_fds(),
                children=len(process.children(recursive=True)),
            )
    except psutil.Error:
        return None  # it ended just now


def left_behind(prefix: str) -> list[int]:
    """Processes of this fleet that still live."""
    found = []
    for process in psutil.process_iter():
        try:
            if process.environ().get("AGENTSTREAM_TOPIC_PREFIX") == prefix and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process.pid)
        except (psutil.Error, OSError):
            continue
    return found


def left_in(directory: Path) -> list[str]:
    """Files and directories that workers made in their temporary directory and did not remove."""
    return sorted(str(path.relative_to(directory)) for path in directory.rglob("*"))
