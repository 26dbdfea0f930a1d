"""Every request on the log has its outcome: one result, or one dead letter, or both; and none has two."""

import contextlib
import hashlib
import json
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator

from tests.chaos.log import Line, Log

Place = tuple[int, int]
"""Partition and offset of a request."""
EXPECT = "chaos-expect"
"""Header of a request: RUN, or the code of the error that it must end with. Without it nothing special is expected."""
RUN = "run"
CONFLICT = "duplicate_conflict"
CRASH_LIMIT = 3


def run_of(line: Line) -> str | None:
    """The run that a request names: in its body, else in `ce_id`. None: none, or not to be read."""
    found = None
    if line.value.startswith(b"{"):
        with contextlib.suppress(ValueError, RecursionError):  # a bad record may still name its run in a header
            found = json.loads(line.value).get("id")
    return found if isinstance(found, str) else line.headers.get("ce_id")


def redriven(line: Line) -> bool:
    """Whether it was sent again as a new request, whose run id is made anew."""
    return "dlq-redrive-count" in line.headers


def repeats(requests: Iterable[Line]) -> Iterator[Line]:
    """Requests whose id and body came before in their partition: they owe nothing of their own."""
    seen = set[tuple[int, str, bytes]]()
    for line in requests:
        run_id = run_of(line)
        if run_id is None or redriven(line) or line.headers.get(EXPECT, RUN) != RUN:
            continue
        mark = (line.partition, run_id, hashlib.sha256(line.value).digest())
        if mark in seen:
            yield line
        seen.add(mark)


def exactly_one_result(log: Log, acknowledged: set[str]) -> list[str]:
    """Of every acknowledged request; of others none or one; and of nothing that nobody asked for."""
    asked = {(line.partition, line.offset): line for line in log.requests}
    told: dict[str, list[str]] = defaultdict(list)
    found = []
    for line in log.results:
        body = line.body
        run_id, place = body["run_id"], line.request
        told[run_id].append(f"at {line} under claim {body['claim']}, attempt {body['attempt']}, {body['status']}")
        request = asked.get(place) if place is not None else None
        if request is None:
            found.append(f"run {run_id} was never requested: its result says {line.headers.get('agentstream-request')}")
        elif not redriven(request) and run_of(request) not in (None, run_id):
            found.append(f"the result of run {run_id} says it came of request {request}, which is {run_of(request)}'s")
    lost = [f"run {run_id} has no result" for run_id in sorted(acknowledged - told.keys())]
    twice = [f"run {run_id} has {len(at)} results: {'; '.join(at)}" for run_id, at in told.items() if len(at) > 1]
    return lost + twice + found


def nothing_skipped(log: Log) -> list[str]:
    """Whether each request left something: a line of the index with the result or the dead letter that it tells of."""
    lines = {line.request: line.body["status"] for line in log.finished}
    results = {line.request for line in log.results}
    letters = {line.request for line in log.dead_letters}
    excused = {(line.partition, line.offset) for line in repeats(log.requests)}
    found = []
    for request in log.requests:
        place = (request.partition, request.offset)
        status = lines.get(place)
        if status is None and place not in excused:
            found.append(f"request {request} ({run_of(request)}) left no line in the index: it was skipped")
        if status == "rejected" and place not in letters:
            found.append(f"request {request} ({run_of(request)}) was rejected and has no dead letter")
        if status not in (None, "rejected") and place not in results:
            found.append(f"request {request} ({run_of(request)}) is {status} in the index and has no result")
    return found


def one_line_each(log: Log) -> list[str]:
    """Whether any request has two dead letters, or two lines in the index."""
    letters = Counter(line.headers.get("agentstream-request") for line in log.dead_letters)
    lines = Counter(line.headers.get("agentstream-request") for line in log.finished)
    twice = [f"{where} has {n} dead letters" for where, n in letters.items() if n > 1]
    return twice + [f"{where} has {n} lines in the index" for where, n in lines.items() if n > 1]


def dead_letters_are_true(log: Log) -> list[str]:
    """Whether each dead letter is the record at its coordinates, and tells what the record's result tells."""
    asked = {(line.partition, line.offset): line for line in log.requests}
    errors = {line.request: (line.body.get("error") or {}).get("code") for line in log.results}
    found = []
    for letter in log.dead_letters:
        headers = letter.headers
        place = (int(headers["__dlq.errors.partition"]), int(headers["__dlq.errors.offset"]))
        request, code = asked.get(place), headers["dlq-error-code"]
        if place != letter.request or letter.partition != place[0] or request is None:
            found.append(f"the dead letter at {letter} says it is of {place}, its header {letter.request}")
        elif "dlq-truncated" not in headers and (letter.value, letter.key) != (request.value, request.key):
            found.append(f"the dead letter at {letter} is not the record at {request}")
        if place in errors and errors[place] != code:
            found.append(f"the dead letter of {place} says {code}, the result {errors[place]}")
    return found


def ended_as_expected(log: Log) -> list[str]:
    """Whether what was marked by its sender ended so: bad records as dead letters, good ones without any.

    A good one may also be cancelled, if somebody asked for it, or be lost with three workers: `crash_limit`.
    """
    results = {line.request: line.body for line in log.results}
    letters = {line.request: line.headers["dlq-error-code"] for line in log.dead_letters}
    excused = {(line.partition, line.offset) for line in repeats(log.requests)}
    found = []
    for request in log.requests:
        expected, place = request.headers.get(EXPECT), (request.partition, request.offset)
        if expected is None or place in excused:
            continue
        letter, result = letters.get(place), results.get(place)
        code = ((result or {}).get("error") or {}).get("code")
        name = f"request {request} ({run_of(request)})"
        if expected != RUN:
            owed = expected if run_of(request) is not None and expected != CONFLICT else None
            if letter != expected:
                found.append(f"{name} is bad and should be a dead letter {expected}; it has {letter}")
            if code != owed or (result is not None and owed is None):
                found.append(f"{name} is bad: its result should say {owed}, and says {code}")
        elif result is not None and result["status"] == "failed":
            if code != "crash_limit" or result["crashes"] < CRASH_LIMIT:
                found.append(f"{name} failed with {code} after {result['crashes']} crashes; nothing is wrong with it")
        elif letter is not None:
            found.append(f"{name} ended well and is a dead letter {letter} all the same")
    return found


def cancelled_only_when_asked(log: Log) -> list[str]:
    """Whether every cancelled run has a control record that asked for it."""
    if log.controls is None:
        return []
    asked = set[object]()
    for line in log.controls:
        with contextlib.suppress(ValueError, AttributeError):  # malformed ones ask for nothing
            asked.add(line.body.get("run_id"))
    return [
        f"run {body['run_id']} is cancelled and nobody asked for it"
        for body in (line.body for line in log.results)
        if body["status"] == "cancelled" and body["run_id"] not in asked
    ]
