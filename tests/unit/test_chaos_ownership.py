"""Who may claim a partition when: what the chaos checker makes of a group's commits and generations."""

import json
from dataclasses import replace

import pytest

from tests.chaos.books import claims_only_grow
from tests.chaos.commits import Commit
from tests.chaos.log import Line, Log
from tests.chaos.ownership import owners_change_with_generations, unreadable_metadata_stays

GENERATION_MS = 1_000
"""Each generation begins so long after the one before it."""


def commit(owner: str, claim: int, generation: int) -> Commit:
    return Commit(
        partition=0,
        offset=0,
        metadata=json.dumps({"v": 1, "o": owner, "c": claim, "k": 1}),
        generation=generation,
        generation_ms=generation * GENERATION_MS,
    )


def set_by_hand(metadata: str) -> Commit:
    return Commit(partition=0, offset=0, metadata=metadata)


def log_of(*commits: Commit, requests: tuple[Line, ...] = (), deltas: tuple[Line, ...] = ()) -> Log:
    return Log(
        requests=list(requests), results=[], deltas=list(deltas), finished=[], dead_letters=[], commits=list(commits)
    )


def line(body: object, ms: int) -> Line:
    return Line(partition=0, offset=0, key="", headers={}, value=json.dumps(body).encode(), timestamp_ms=ms)


def begun(run_id: str, claim: int) -> Line:
    return line({"run_id": run_id, "claim": claim, "attempt": 1, "attempt_id": f"{run_id}-{claim}", "events": []}, 0)


def owners(log: Log) -> list[str]:
    return owners_change_with_generations(log, log.told())


@pytest.mark.parametrize(
    "commits",
    [
        (commit("a", 1, 1), commit("a", 1, 2), commit("a", 1, 3)),
        (commit("a", 1, 1), commit("a", 2, 1)),
        (commit("a", 1, 1), commit("b", 2, 2)),
        # Lost and found again, and it never heard that it was lost: the group gave it back.
        (commit("a", 1, 1), commit("b", 2, 2), commit("a", 3, 3)),
        # Its first claim was under way when the generation changed.
        (commit("a", 1, 2), commit("b", 2, 2)),
    ],
    ids=["kept", "claimed anew", "moved", "moved and given back", "moved while it was claimed"],
)
def test_owners_that_change_with_generations_are_no_matter(commits: tuple[Commit, ...]) -> None:
    assert owners(log_of(*commits)) == []


def test_a_zombie_that_takes_its_partition_back_is_found() -> None:
    (said,) = owners(log_of(commit("a", 1, 1), commit("b", 2, 2), commit("a", 3, 2)))
    assert "claim 3 of owner a took it from claim 2 of owner b" in said


@pytest.mark.parametrize(("sent_ms", "void_claims"), [(2_500, 0), (3_500, 1)])
def test_a_request_begun_under_a_void_claim_is_found_if_it_came_after_the_owner_was_back(
    sent_ms: int, void_claims: int
) -> None:
    """One that was sent before may have been begun by a zombie that knew of nothing. Sent once more, it is no other."""
    log = log_of(
        *(commit("a", 1, 1), commit("b", 2, 2), commit("a", 3, 3)),
        requests=(line({"id": "run"}, sent_ms), line({"id": "run"}, 4_000)),
        deltas=(begun("run", 1), begun("run", 3)),
    )
    assert sum("began under claim 1, which was void" in said for said in owners(log)) == void_claims


def test_metadata_that_nobody_could_read_may_be_put_back_and_not_written_over() -> None:
    before, newer = commit("a", 1, 1), set_by_hand('{"v":2}')
    assert unreadable_metadata_stays(log_of(before, newer, before, commit("b", 2, 2))) == []
    assert unreadable_metadata_stays(log_of(before, set_by_hand(""), commit("b", 2, 2))) == []
    for strange in ('{"v":2}', "{}"):
        (said,) = unreadable_metadata_stays(log_of(before, set_by_hand(strange), commit("b", 2, 2)))
        assert "claim 2 wrote over metadata of version" in said


def test_a_commit_that_a_broker_wrote_twice_is_one_and_a_number_used_twice_is_not() -> None:
    """A broker that dies before it answers is asked again, and what it was asked for may stand there twice."""
    first = commit("a", 1, 1)
    assert claims_only_grow(log_of(first, first)) == []
    (found,) = claims_only_grow(log_of(first, replace(first, offset=1)))
    assert "an owner committed that was replaced" in found
