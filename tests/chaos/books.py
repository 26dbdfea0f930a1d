"""What the group committed: never past unfinished work, never under an older claim, and all of it at the end."""

from collections import defaultdict
from collections.abc import Iterable, Mapping

from tests.chaos.commits import Commit
from tests.chaos.log import Log
from tests.chaos.outcomes import Place, repeats

_NEVER = float("inf")


def never_past_unfinished_work(log: Log) -> list[str]:
    """Whether every offset that a commit calls finished had its outcome written down by then.

    A commit calls finished what lies below its next offset and is not open in its metadata. An outcome is a line of the
    index; a request that is sent twice owes one only once. Times are compared: an outcome's record is sent before the
    offsets of its transaction, and all clocks of a test are one.
    """
    written: dict[Place, float] = {}
    for line in log.finished:
        if (place := line.request) is not None:
            written[place] = min(written.get(place, _NEVER), line.timestamp_ms)
    excused = {(line.partition, line.offset) for line in repeats(log.requests)}
    waiting: dict[int, list[int]] = defaultdict(list)
    for line in sorted(log.requests, key=lambda line: -line.offset):
        if (line.partition, line.offset) not in excused:
            waiting[line.partition].append(line.offset)
    found = []
    for partition, commits in _by_partition(log.commits).items():
        found += _past_unfinished(partition, commits, waiting[partition], written)
    return found


def _past_unfinished(
    partition: int, commits: Iterable[Commit], waiting: list[int], written: Mapping[Place, float]
) -> list[str]:
    """`waiting`: the partition's requests, the first one last. It is used up."""
    found, left_open = list[str](), set[int]()
    for commit in commits:
        opened, end = commit.open, commit.next_offset
        while waiting and waiting[-1] < end:
            left_open.add(waiting.pop())
        for offset in sorted(left_open - opened):
            if offset >= end:
                continue
            left_open.discard(offset)
            at = written.get((partition, offset))
            if at is None or at > commit.timestamp_ms:
                when = "never written down" if at is None else f"written {at - commit.timestamp_ms:.0f} ms later"
                found.append(
                    f"partition {partition}: commit {commit.number} of claim {commit.claim} calls request {offset} "
                    f"finished (committed {commit.offset}, next {end}); its outcome was {when}"
                )
    return found


def claims_only_grow(log: Log) -> list[str]:
    """Whether the commits of a partition are of one claim after the other, and the offset never falls."""
    found = []
    for partition, commits in _by_partition(log.commits).items():
        last: Commit | None = None
        for commit in commits:
            if not commit.owner:
                last = None  # an operator's, or another tool's: who sets an offset may set it anywhere
                continue
            if last is not None and (commit.offset, commit.metadata) == (last.offset, last.metadata):
                continue  # a broker wrote it, died before it said so, and aiokafka asked the next one again
            if last is not None and (commit.claim, commit.number) <= (last.claim, last.number):
                found.append(
                    f"partition {partition}: commit {commit.number} of claim {commit.claim} came after "
                    f"commit {last.number} of claim {last.claim}: an owner committed that was replaced"
                )
            if last is not None and commit.offset < last.offset:
                found.append(
                    f"partition {partition}: the committed offset fell from {last.offset} (claim {last.claim}) to "
                    f"{commit.offset} (claim {commit.claim}): what lies between is read again"
                )
            last = commit
    return found


def _by_partition(commits: Iterable[Commit]) -> dict[int, list[Commit]]:
    found: dict[int, list[Commit]] = defaultdict(list)
    for commit in commits:
        found[commit.partition].append(commit)
    return found


def everything_committed(log: Log) -> list[str]:
    """Whether the group stands at the end of the log with nothing open."""
    found = []
    for partition, end in log.ends.items():
        offset, left = log.committed.get(partition, (0, {}))
        if offset != end:
            found.append(f"partition {partition}: committed {offset}, the log ends at {end}")
        if left.get("p"):
            found.append(f"partition {partition}: requests are still open in the metadata")
    return found


def nothing_hangs(log: Log) -> list[str]:
    """Whether a read_committed reader reaches the end of every partition."""
    return [
        f"{where}: a transaction hangs: readers stop at {stable}, the log ends at {high}"
        for where, (stable, high) in log.stable.items()
        if stable != high
    ]
