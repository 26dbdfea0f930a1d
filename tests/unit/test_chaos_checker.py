"""The chaos checker on logs made by hand: each broken promise is found, and a log that keeps them all is not."""

import base64
import json
import zlib
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest

from tests.chaos.audit import violations
from tests.chaos.commits import Commit
from tests.chaos.log import Line, Log

Break = Callable[[Log], None]
T0 = 1_700_000_000_000
"""Milliseconds since 1970 at which everything begins."""


def at(ms: int) -> str:
    return datetime.fromtimestamp((T0 + ms) / 1000, UTC).isoformat()


def line(offset: int, body: object, ms: int, *, partition: int = 0, **headers: str) -> Line:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    value = body if isinstance(body, bytes) else json.dumps(body).encode()
    return Line(partition=partition, offset=offset, key="s", headers=named, value=value, timestamp_ms=T0 + ms)


def request(offset: int, run_id: str, ms: int, expect: str = "run") -> Line:
    return line(offset, {"id": run_id, "session_id": "s"}, ms, chaos_expect=expect)


def result(offset: int, run_id: str, of: int, ms: int, **more: Any) -> Line:
    body = {
        "run_id": run_id, "session_id": "s", "partition": 0, "status": "completed", "claim": 7, "attempt": 1,
        "attempt_id": f"a-{run_id}", "crashes": 0, "last_seq": 2, "deltas": "complete", "parameters": {},
        "started_at": at(ms - 100), "ended_at": at(ms), "messages": said("hello"), **more,
    }  # fmt: skip
    return line(offset, body, ms, agentstream_request=f"in/0/{of}")


def said(text: str) -> list[dict[str, object]]:
    return [{"role": "assistant", "parts": [{"type": "text", "content": text}]}]


def deltas(offset: int, run_id: str, ms: int, **more: Any) -> Line:
    body = {
        "run_id": run_id, "claim": 7, "attempt": 1, "attempt_id": f"a-{run_id}", "first_seq": 0,
        "events": [
            {"type": "run.started", "seq": 0, "time": at(ms)},
            {"type": "part.delta", "part_type": "text", "delta": "hello", "seq": 1, "time": at(ms)},
            {"type": "run.ended", "seq": 2, "time": at(ms)},
        ], **more,
    }  # fmt: skip
    return line(offset, body, ms)


def index(offset: int, of: int, status: str, ms: int) -> Line:
    return line(offset, {"status": status, "offset": of}, ms, agentstream_request=f"in/0/{of}")


def letter(offset: int, of: Line, code: str, ms: int) -> Line:
    coordinates = {"__dlq.errors.partition": "0", "__dlq.errors.offset": str(of.offset), "dlq-error-code": code}
    headers = coordinates | {"agentstream-request": f"in/0/{of.offset}"}
    return Line(partition=0, offset=offset, key="s", headers=headers, value=of.value, timestamp_ms=T0 + ms)


def commit(
    offset: int, number: int, ms: int, *, ahead: int = 0, opened: tuple[int, ...] = (), claim: int = 7
) -> Commit:
    body: dict[str, object] = {"v": 1, "c": claim, "o": "owner", "k": number, "n": ahead}
    if opened:
        gaps, last = bytearray(), -1
        for distance in opened:
            gaps.append(distance - last - 1)
            last = distance
        body["p"] = base64.urlsafe_b64encode(zlib.compress(bytes(gaps), wbits=-15)).decode().rstrip("=")
    return Commit(partition=0, offset=offset, metadata=json.dumps(body), timestamp_ms=T0 + ms)


def sound() -> Log:
    """Two runs of a session, the second one cancelled as asked; a bad record; the first request sent twice."""
    bad = line(2, b"{", 20, chaos_expect="malformed_json")
    return Log(
        requests=[request(0, "one", 0), request(1, "two", 10), bad, replace(request(0, "one", 0), offset=3)],
        results=[result(0, "one", 0, 300), result(1, "two", 1, 600, status="cancelled", messages=[])],
        deltas=[deltas(0, "one", 200), deltas(1, "two", 500)],
        finished=[index(0, 2, "rejected", 100), index(1, 0, "completed", 300), index(2, 1, "cancelled", 600)],
        dead_letters=[letter(0, bad, "malformed_json", 100)],
        controls=[line(0, {"run_id": "two"}, 300), line(1, b"\xff", 400)],
        commits=[commit(0, 1, 50), commit(0, 2, 110, ahead=3, opened=(0, 1)), commit(1, 3, 310, ahead=3, opened=(0,)),
                 commit(4, 4, 610)],
        committed={0: (4, {})},
        ends={0: 4},
        stable={"in/0": (4, 4)},
    )  # fmt: skip


def test_a_log_that_keeps_every_promise_has_no_violations() -> None:
    assert violations(sound(), ["one", "two"]) == []


def change(lines: list[Line], place: int, **changes: Any) -> None:
    lines[place] = replace(lines[place], value=json.dumps(lines[place].body | changes).encode())


def lose_a_result(log: Log) -> None:
    del log.results[0]


def lose_the_last_result(log: Log) -> None:
    del log.results[-1]


def repeat_a_result(log: Log) -> None:
    log.results.append(result(2, "one", 0, 900, claim=8))


def invent_a_result(log: Log) -> None:
    log.results.append(result(2, "three", 9, 900))


def give_a_result_to_another(log: Log) -> None:
    change(log.results, 0, run_id="two")


def skip_a_request(log: Log) -> None:
    log.requests.append(request(4, "five", 50))


def write_two_dead_letters(log: Log) -> None:
    log.dead_letters.append(replace(log.dead_letters[0], offset=1))


def index_twice(log: Log) -> None:
    log.finished.append(replace(log.finished[1], offset=9))


def forget_a_dead_letter(log: Log) -> None:
    log.dead_letters.clear()


def change_a_dead_letter(log: Log) -> None:
    log.dead_letters[0] = replace(log.dead_letters[0], value=b"[")


def misplace_a_dead_letter(log: Log) -> None:
    headers = log.dead_letters[0].headers | {"__dlq.errors.offset": "7"}
    log.dead_letters[0] = replace(log.dead_letters[0], headers=headers)


def blame_a_dead_letter_on_something_else(log: Log) -> None:
    headers = log.dead_letters[0].headers | {"dlq-error-code": "schema_invalid"}
    log.dead_letters[0] = replace(log.dead_letters[0], headers=headers)


def answer_a_bad_record_that_named_its_run_without_a_result(log: Log) -> None:
    log.requests[2] = replace(log.requests[2], headers=log.requests[2].headers | {"ce_id": "bad"})


def fail_a_good_run(log: Log) -> None:
    change(log.results, 0, status="failed", error={"code": "internal"})


def fail_by_the_crash_limit_after_one_crash(log: Log) -> None:
    change(log.results, 0, status="failed", error={"code": "crash_limit"}, crashes=1)


def bury_a_good_run(log: Log) -> None:
    log.dead_letters.append(letter(1, log.requests[0], "internal", 300))


def cancel_unasked(log: Log) -> None:
    assert log.controls is not None
    log.controls.clear()


def swap_two_results(log: Log) -> None:
    log.results.reverse()


def put_a_result_elsewhere(log: Log) -> None:
    log.results[0] = replace(log.results[0], partition=1)


def start_before_the_one_ahead_has_ended(log: Log) -> None:
    log.deltas[1] = deltas(1, "two", 299)


def start_before_the_result_ahead_was_sent(log: Log) -> None:
    log.results[0] = replace(log.results[0], timestamp_ms=T0 + 501)


def lose_a_delta(log: Log) -> None:
    change(log.deltas, 0, events=log.deltas[0].body["events"][1:])


def lose_the_end(log: Log) -> None:
    change(log.deltas, 0, events=log.deltas[0].body["events"][:2])


def say_something_else(log: Log) -> None:
    change(log.results, 0, messages=said("goodbye"))


def let_a_later_attempt_speak(log: Log) -> None:
    log.deltas.append(deltas(2, "one", 250, claim=8, attempt_id="later"))


def let_two_attempts_have_one_number(log: Log) -> None:
    log.deltas.append(deltas(2, "one", 250, attempt_id="other"))


def lose_an_acknowledged_delta_of_a_partial_result(log: Log) -> None:
    change(log.results, 0, deltas="partial", last_seq=3)


def commit_before_the_outcome(log: Log) -> None:
    log.finished[1] = replace(log.finished[1], timestamp_ms=T0 + 311)


def commit_past_an_open_run(log: Log) -> None:
    log.commits[1] = commit(1, 2, 110, ahead=2, opened=(0,))


def commit_under_a_void_claim(log: Log) -> None:
    log.commits.append(commit(4, 5, 620, claim=6))


def commit_backwards(log: Log) -> None:
    log.commits.append(commit(1, 5, 620, ahead=3))


def stop_short(log: Log) -> None:
    log.committed[0] = (3, {"p": "AA"})


def leave_a_transaction_open(log: Log) -> None:
    log.stable["in/0"] = (3, 4)


BROKEN: tuple[tuple[Break, str], ...] = (
    (lose_a_result, "run one has no result"),
    (repeat_a_result, "run one has 2 results: at 0/0 under claim 7, attempt 1, completed; at 0/2 under claim 8"),
    (invent_a_result, "run three was never requested"),
    (give_a_result_to_another, "the result of run two says it came of request 0/0, which is one's"),
    (skip_a_request, "request 0/4 (five) left no line in the index"),
    (lose_the_last_result, "request 0/1 (two) is cancelled in the index and has no result"),
    (write_two_dead_letters, "in/0/2 has 2 dead letters"),
    (index_twice, "in/0/0 has 2 lines in the index"),
    (forget_a_dead_letter, "request 0/2 (None) was rejected and has no dead letter"),
    (forget_a_dead_letter, "should be a dead letter malformed_json; it has None"),
    (change_a_dead_letter, "the dead letter at 0/0 is not the record at 0/2"),
    (misplace_a_dead_letter, "the dead letter at 0/0 says it is of (0, 7), its header (0, 2)"),
    (blame_a_dead_letter_on_something_else, "should be a dead letter malformed_json; it has schema_invalid"),
    (answer_a_bad_record_that_named_its_run_without_a_result, "its result should say malformed_json, and says None"),
    (fail_a_good_run, "request 0/0 (one) failed with internal after 0 crashes"),
    (fail_by_the_crash_limit_after_one_crash, "failed with crash_limit after 1 crashes"),
    (bury_a_good_run, "request 0/0 (one) ended well and is a dead letter internal all the same"),
    (cancel_unasked, "run two is cancelled and nobody asked for it"),
    (swap_two_results, "the result of one stands behind a later one of its session"),
    (put_a_result_elsewhere, "the result of one is in partition 1, its request at (0, 0)"),
    (start_before_the_one_ahead_has_ended, "run two started 1 ms before the result of one"),
    (start_before_the_result_ahead_was_sent, "run two started 1 ms before the result of one"),
    (lose_a_delta, "attempt a-one: seq 1 comes where 0 should"),
    (lose_the_end, "run one: 2 events on the log, last_seq is 2"),
    (say_something_else, "run one: deltas say 'hello', the result 'goodbye'"),
    (
        let_a_later_attempt_speak,
        "run one: a reader would keep attempt later (claim 8, attempt 1), the result is of a-one",
    ),
    (let_two_attempts_have_one_number, "has these very numbers, so a reader cannot tell which to keep"),
    (lose_an_acknowledged_delta_of_a_partial_result, "run one: 3 events on the log, though 3 was acknowledged"),
    (commit_before_the_outcome, "calls request 0 finished (committed 1, next 4); its outcome was written 1 ms later"),
    (commit_past_an_open_run, "commit 2 of claim 7 calls request 0 finished (committed 1, next 3); its outcome was"),
    (commit_under_a_void_claim, "commit 5 of claim 6 came after commit 4 of claim 7: an owner committed"),
    (commit_backwards, "the committed offset fell from 4 (claim 7) to 1 (claim 7)"),
    (stop_short, "partition 0: committed 3, the log ends at 4"),
    (stop_short, "partition 0: requests are still open in the metadata"),
    (leave_a_transaction_open, "in/0: a transaction hangs: readers stop at 3, the log ends at 4"),
)


@pytest.mark.parametrize(("broken", "said_of_it"), BROKEN, ids=[broken.__name__ for broken, _ in BROKEN])
def test_the_checker_finds_what_is_broken(broken: Break, said_of_it: str) -> None:
    log = sound()
    broken(log)
    found = violations(log, ["one", "two"])
    assert any(said_of_it in sentence for sentence in found), found
