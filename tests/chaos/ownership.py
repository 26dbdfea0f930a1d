"""Who owned a partition when: owners change with the group's generations, and only with them; none writes over what
it cannot read."""

from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import pairwise

from tests.chaos.commits import Commit
from tests.chaos.log import Line, Log
from tests.chaos.outcomes import run_of
from tests.chaos.transcripts import Transcripts

VERSION = 1
"""Of the metadata, that today's workers write."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Claim:
    """One ownership of a partition, as its first commit tells it."""

    number: int
    """The claim's number."""
    owner: str
    """Who claimed: one id per assignment of the partition to a worker, kept while it stays there."""
    generation: int
    """The group's generation when it was claimed."""
    since_ms: int
    """When that generation began."""


def claims_of(commits: Iterable[Commit]) -> list[Claim]:
    """The claims of one partition, in the order in which they ruled."""
    found: list[Claim] = []
    for commit in commits:
        if commit.owner and (not found or (found[-1].number, found[-1].owner) != (commit.claim, commit.owner)):
            found.append(
                Claim(
                    number=commit.claim,
                    owner=commit.owner,
                    generation=commit.generation,
                    since_ms=commit.generation_ms,
                )
            )
    return found


def owners_change_with_generations(log: Log, told: Transcripts) -> list[str]:
    """Whether anybody took a partition back that the group had given to another, or read on without knowing it.

    In one generation a partition is assigned to one worker. One that had it before, and claims it again although the
    new owner has claimed it in this very generation, is a zombie that fenced a live owner.
    """
    by_partition: dict[int, list[Commit]] = defaultdict(list)
    for commit in log.commits:
        by_partition[commit.partition].append(commit)
    began: dict[int, list[tuple[str, str]]] = defaultdict(list)
    for attempt_id, attempt in told.attempts.items():
        began[attempt.rank[0]].append((attempt_id, attempt.run_id))
    sent: dict[str | None, Line] = {}
    for line in log.requests:
        sent.setdefault(run_of(line), line)  # what is sent again does not run again
    found = []
    for partition, commits in by_partition.items():
        claims = claims_of(commits)
        found += [f"partition {partition}: {taken}" for taken in _taken_back(claims)]
        for void, back in _void_and_anew(claims):
            found += [
                f"attempt {attempt_id} of run {run_id} began under claim {void.number}, which was void: its request at "
                f"{sent[run_id]} came {late} ms after generation {back.generation}, in which its owner had to claim "
                f"anew (claim {back.number})"
                for attempt_id, run_id in began[void.number]
                if run_id in sent
                and sent[run_id].partition == partition
                and (late := sent[run_id].timestamp_ms - back.since_ms) > 0
            ]
    return found


def unreadable_metadata_stays(log: Log) -> list[str]:
    """Whether nobody claimed a partition over metadata of a version that it does not know, or of another tool.

    An operator may put back what stood there before; that is no new claim.
    """
    found, known = [], set[tuple[int, int]]()
    unreadable: dict[int, Commit] = {}
    for commit in log.commits:
        if commit.version not in (None, VERSION):
            unreadable[commit.partition] = commit
            continue
        left = unreadable.pop(commit.partition, None)
        if left is not None and commit.owner and (commit.partition, commit.claim) not in known:
            found.append(
                f"partition {commit.partition}: claim {commit.claim} wrote over metadata of version {left.version} at "
                f"{left.offset}, which says in its own words what is open"
            )
        known.add((commit.partition, commit.claim))
    return found


def _taken_back(claims: list[Claim]) -> Iterator[str]:
    owners = set[str]()
    for former, later in pairwise(claims):
        if later.owner != former.owner and later.owner in owners and later.generation == former.generation:
            yield (
                f"claim {later.number} of owner {later.owner} took it from claim {former.number} of owner "
                f"{former.owner}, to whom the group had given it in this very generation ({later.generation})"
            )
        owners.add(former.owner)


def _void_and_anew(claims: list[Claim]) -> Iterator[tuple[Claim, Claim]]:
    """Claims of owners to whom a partition came back which another had had meanwhile, and what they claimed then.

    A request that was written after the generation that brought it back was read in that generation: never under the
    old claim.
    """
    for number, back in enumerate(claims):
        void = next((claim for claim in reversed(claims[:number]) if claim.owner == back.owner), None)
        if void is not None and void is not claims[number - 1]:
            yield void, back
