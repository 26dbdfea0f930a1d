"""What spans leave behind in memory."""

import gc
import time
import weakref
from collections.abc import Iterator
from datetime import UTC, datetime

import pytest

from agentstream.consumers.numbering import AttemptName
from agentstream.consumers.tracing.attempt import AgentFacts
from tests.support.spans import Recorder, process_of
from tests.unit.playing import Scene


@pytest.fixture
def no_collector() -> Iterator[None]:
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


@pytest.mark.usefixtures("no_collector")
def test_a_requests_spans_are_freed_when_it_is_over_and_do_not_wait_for_pythons_collector() -> None:
    # A worker's collector comes seldom: nine spans a run, in a cycle, were tens of megabytes until then.
    process = process_of(Recorder().maker(), Scene().admitted())
    name = AttemptName(run_id="run", session_id="session", claim=3, attempt=1, attempt_id="a")
    attempt = process.attempt(name, AgentFacts(model="p/m", harness="scripted"), datetime.now(UTC))
    attempt.close(time.time_ns(), None, reason="stop", cost=None)
    process.send_trace("results")
    process.committed("completed", None)
    left: list[weakref.ref[object]] = [weakref.ref(process), weakref.ref(attempt)]
    del process, attempt
    assert [each() for each in left] == [None, None]
