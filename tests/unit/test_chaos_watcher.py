"""The chaos suite's live reader, its stopwatch and its meter, fed by hand."""

from pathlib import Path
from typing import Any

import pytest

from tests.chaos.bounds import MEBIBYTE, MOST_RSS, Meter, Sample, growth
from tests.chaos.fleet import Fleet
from tests.chaos.liveness import Recovery, percentile, recoveries
from tests.chaos.log import java_hash
from tests.chaos.mixed_load import Sent
from tests.chaos.ordeal import Plan, spread, too_slow
from tests.chaos.schedule import Done, Fault, schedule
from tests.chaos.watcher import Watcher


@pytest.fixture
def fleet(tmp_path: Path) -> Fleet:
    return Fleet(bootstrap_servers="nowhere:1", prefix="t.", logs=tmp_path)


@pytest.fixture
def watcher(fleet: Fleet) -> Watcher:
    return Watcher(fleet)


def deltas(*texts: str, first: int = 0, claim: int = 1, attempt: int = 1, attempt_id: str = "a") -> dict[str, Any]:
    events = [
        {"type": "part.delta", "part_type": "text", "delta": text, "seq": first + place}
        for place, text in enumerate(texts)
    ]
    return {"run_id": "run", "claim": claim, "attempt": attempt, "attempt_id": attempt_id, "events": events}


def result(said: str, last_seq: int, *, claim: int = 1, attempt_id: str = "a") -> dict[str, Any]:
    return {
        "run_id": "run", "claim": claim, "attempt": 1, "attempt_id": attempt_id, "last_seq": last_seq,
        "status": "completed", "deltas": "complete",
        "messages": [{"role": "assistant", "parts": [{"type": "text", "content": said}]}],
    }  # fmt: skip


def test_what_was_kept_is_the_result_whichever_is_read_first(watcher: Watcher, fleet: Fleet) -> None:
    watcher.take_deltas(deltas("hel", "lo"))
    watcher.take_result(result("hello", 1))
    other = Watcher(fleet)
    other.take_result(result("hello", 1))
    other.take_deltas(deltas("hel", "lo"))
    assert watcher.violations() == other.violations() == []


def test_a_later_attempt_replaces_an_earlier_one_and_a_zombie_is_ignored(watcher: Watcher) -> None:
    watcher.take_deltas(deltas("lost", "words"))
    watcher.take_deltas(deltas("hello", claim=2, attempt_id="b"))
    watcher.take_deltas(deltas("too late", first=2))
    watcher.take_deltas(deltas("hello", claim=2, attempt_id="b"))
    watcher.take_result(result("hello", 0, claim=2, attempt_id="b"))
    assert watcher.violations() == []
    assert watcher.ignored == {"records of lower attempts": 1, "events seen before": 1}


def test_a_result_of_another_attempt_than_was_kept_is_found(watcher: Watcher) -> None:
    watcher.take_deltas(deltas("hello", claim=2, attempt_id="b"))
    watcher.take_result(result("hello", 0))
    (found,) = watcher.violations()
    assert (
        found
        == "run run: a reader keeps 1 events of claim 2, attempt 1; the result is of claim 1, attempt 1, last_seq 0"
    )


def test_a_higher_attempt_after_the_result_is_found(watcher: Watcher) -> None:
    watcher.take_deltas(deltas("hello"))
    watcher.take_result(result("hello", 0))
    watcher.take_deltas(deltas("hello", claim=2, attempt_id="b"))
    assert watcher.violations() == ["run run: claim 2, attempt 1 spoke up after claim 1, attempt 1 had won"]


def test_two_attempts_of_one_number_are_found(watcher: Watcher) -> None:
    watcher.take_deltas(deltas("hello"))
    watcher.take_deltas(deltas("hello", attempt_id="b"))
    assert watcher.violations() == ["run run: two attempts are claim 1, attempt 1, a reader cannot tell them apart"]


def test_a_missing_event_is_found(watcher: Watcher) -> None:
    watcher.take_deltas(deltas("hello", first=1))
    assert watcher.violations() == ["run run: claim 1, attempt 1 goes on with seq 1, 0 is missing"]


def test_another_text_than_the_results_is_found(watcher: Watcher) -> None:
    watcher.take_deltas(deltas("goodbye"))
    watcher.take_result(result("hello", 0))
    assert watcher.violations() == ["run run: followed live it said 'goodbye', its result says 'hello'"]


def test_a_second_result_is_found(watcher: Watcher) -> None:
    watcher.take_deltas(deltas("hello"))
    watcher.take_result(result("hello", 0))
    watcher.take_result(result("hello", 0))
    assert watcher.violations() == ["run run had a second result while it was watched"]


def fault(began_at: float, healed_at: float) -> Done:
    return Done(fault=Fault(after_s=0, kind="kill", draw=0), began_at=began_at, healed_at=healed_at)


def sent(partition: int, at: float, seconds: float = 0.1, session: str = "s") -> Sent:
    return Sent(partition=partition, session=session, at=at, seconds=seconds)


def test_the_slowest_partition_that_owed_results_counts() -> None:
    known = {"a": sent(0, 9), "b": sent(1, 9, session="t"), "early": sent(1, 1)}
    flows = recoveries([fault(9, 10)], known, {"a": 11, "b": 17, "early": 2})
    assert flows == [Recovery(kind="kill", partition=1, seconds=7)]


def test_a_long_run_and_what_waits_behind_it_are_not_waited_for() -> None:
    known = {"long": sent(0, 8, seconds=60), "behind": sent(0, 9), "b": sent(1, 9, session="t")}
    flows = recoveries([fault(9, 10)], known, {"long": 70, "behind": 71, "b": 11})
    assert [flow.seconds for flow in flows] == [1]


def test_only_the_time_in_which_another_fault_is_being_done_is_taken_off() -> None:
    flows = recoveries([fault(9, 10), fault(12, 15)], {"a": sent(0, 9)}, {"a": 20})
    assert [flow.seconds for flow in flows] == [7, 5]


def test_a_partition_that_never_shows_a_result_again_is_an_endless_wait() -> None:
    flows = recoveries([fault(9, 10)], {"a": sent(0, 9)}, {})
    assert [flow.seconds for flow in flows] == [float("inf")]
    assert any("came back inf s after" in found for found in too_slow(flows))


def test_one_slow_recovery_in_twenty_is_allowed_and_two_are_not() -> None:
    quick, slow = Recovery(kind="kill", partition=0, seconds=5), Recovery(kind="kill", partition=0, seconds=17)
    assert too_slow([quick] * 19 + [slow]) == []
    assert too_slow([quick] * 18 + [slow] * 2) != []
    assert too_slow([quick] * 17 + [slow] * 2) == []
    assert percentile([], 0.95) == 0
    assert percentile([1, 2, 3, 4], 0.5) == 2


def samples(*rss: int, every_s: float = 10) -> list[Sample]:
    return [
        Sample(at=place * every_s, rss=mib * MEBIBYTE, threads=5, fds=50, children=0) for place, mib in enumerate(rss)
    ]


def test_a_worker_that_grows_and_grows_is_found_and_one_that_warms_up_is_not(fleet: Fleet) -> None:
    assert set(growth(samples(*range(60, 600, 10)))) == {"rss"}
    assert growth(samples(*range(60, 120, 10), *[120] * 50)) == {}
    meter = Meter(fleet)
    meter.samples[1] = samples(80, MOST_RSS // MEBIBYTE + 1)
    assert meter.violations() == [f"worker 1 had {MOST_RSS + MEBIBYTE} rss; {MOST_RSS} are more than any needs"]


def test_the_faults_of_a_long_load_reach_to_its_end() -> None:
    faults = schedule(3, faults=10)
    plan = Plan(seed=3, requests=100_000, faults=10, rate=80)
    assert 1_000 < sum(fault.after_s for fault in spread(faults, plan)) < 100_000 / 80
    assert spread(faults, Plan(seed=3, requests=600, faults=10, rate=25)) == faults


def test_a_group_is_kept_in_the_partition_that_java_would_choose() -> None:
    """The numbers were printed by a JVM."""
    assert [java_hash(text) for text in ("workers", "agent.workers", "t0a1b2c3d.workers")] == [
        1525161141,
        1648925388,
        502270271,
    ]
