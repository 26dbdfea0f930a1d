"""What a new owner makes of the log where its predecessor's attempts end: made-up logs, the rest is real."""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from aiokafka.errors import KafkaConnectionError

from agentstream.consumers.numbering import AttemptName
from agentstream.consumers.tracing.attempt import AgentFacts
from agentstream.consumers.tracing.ids import span_id_of
from agentstream.consumers.tracing.lost import LostAttempts
from agentstream.consumers.tracing.process import ProcessSpan
from agentstream.schemas import span_names as names
from agentstream.schemas.errors import ErrorCode, Problem
from agentstream.schemas.events import (
    MessageStarted,
    PartDelta,
    ReadEvent,
    RunEnded,
    RunRetrying,
    RunStarted,
    StreamEvents,
    ToolProgressed,
    TurnStarted,
)
from agentstream.schemas.headers import DeltaHeaders
from agentstream.schemas.records import Position, Record
from tests.support.otlp_values import SpanSeen
from tests.support.spans import Recorder, assert_well_formed, process_of, record_of, tree
from tests.unit.playing import TRACE, Scene

LOST, OURS = 2, 3
"""Numbers of claims; a scene's is 3."""
START = datetime(2026, 1, 1, tzinfo=UTC)
BEGUN: tuple[ReadEvent, ...] = (
    RunStarted(harness="scripted", model="p/m"),
    TurnStarted(turn=1),
    MessageStarted(turn=1, message_id="m"),
    *(PartDelta(turn=1, message_id="m", part_index=0, part_type="text", delta=f"{n} ") for n in range(50)),
)


def delta(
    *events: ReadEvent, attempt: int = 1, claim: int = LOST, first_seq: int = 0, run_id: str = "run"
) -> StreamEvents:
    """A record of the delta topic; its events are a second apart."""
    return StreamEvents(
        run_id=run_id,
        session_id="session",
        claim=claim,
        attempt=attempt,
        attempt_id=f"attempt-{claim}-{attempt}",
        first_seq=first_seq,
        events=tuple(
            event.numbered(first_seq + place, START + timedelta(seconds=first_seq + place))
            for place, event in enumerate(events)
        ),
    )


class Log:
    """The delta topic's partition."""

    def __init__(self, *deltas: StreamEvents, error: BaseException | None = None) -> None:
        self._deltas = deltas
        self._error = error
        self.asked: list[tuple[int, int]] = []

    async def read(self, partition: int, since_ms: int, seen: Callable[[Record], bool]) -> None:
        self.asked.append((partition, since_ms))
        for offset, events in enumerate(self._deltas):
            headers = DeltaHeaders(events.run_id, events.attempt_id, TRACE).of(events.first_seq)
            seen(
                Record(
                    position=Position(topic="d", partition=5, offset=offset),
                    timestamp_ms=0,
                    key=b"s",
                    value=events.to_bytes(),
                    headers=headers,
                )
            )
        if self._error is not None:
            raise self._error


def taken_over(log: Log, *, ends_before: bool = False) -> list[SpanSeen]:
    """All spans after a takeover in which the run went on and completed."""
    recorder = Recorder()
    maker = recorder.maker()
    scene = Scene()
    scene = replace(scene, process=process_of(maker, scene.admitted()))
    admitted = scene.admitted()
    process = admitted.process

    async def go_on() -> None:
        lost = LostAttempts(maker, log.read, partition=5, claim=LOST, offsets=frozenset({admitted.position.offset}))
        lost.taken_again(record_of(admitted.request, admitted), admitted)
        if ends_before:
            finish(process)
            assert recorder.spans == [], "what is to be linked has not left"
        await lost.write()
        if not ends_before:
            finish(process)

    asyncio.run(go_on())
    assert_well_formed(recorder.spans)
    assert recorder.flushed
    return recorder.spans


def finish(process: ProcessSpan) -> None:
    name = AttemptName(run_id="run", session_id="session", claim=OURS, attempt=1, attempt_id="ours")
    spans = process.attempt(name, AgentFacts(model="p/m", harness="scripted"), datetime.now(UTC))
    spans.close(2**62, None, reason="stop", cost=None)
    process.committed("completed", None)


LOST_TREE = [
    "process t !worker_lost",
    "  invoke_agent scripted !worker_lost",
    "    turn 1 !worker_lost",
    "      chat m !worker_lost",
]
OUR_TREE = ["process t", "  invoke_agent scripted"]


def agent(spans: Sequence[SpanSeen], attempt_id: str) -> SpanSeen:
    (found,) = (span for span in spans if span.attributes.get(names.ATTEMPT_ID) == attempt_id)
    return found


@pytest.mark.parametrize("ends_before", [False, True])
def test_a_lost_attempt_is_written_under_its_own_ids_and_linked_to(*, ends_before: bool) -> None:
    log = Log(delta(*BEGUN))
    spans = taken_over(log, ends_before=ends_before)
    assert tree(spans) == [*LOST_TREE, *OUR_TREE]
    lost, ours = agent(spans, f"attempt-{LOST}-1"), agent(spans, "ours")
    assert lost.span_id == span_id_of(f"attempt-{LOST}-1", "agent", 0)
    assert lost.attributes[names.LOST] is True
    assert lost.start_ns == int(START.timestamp()) * 10**9
    assert [link.span_id for link in ours.links] == [lost.span_id]
    assert {span.trace_id for span in spans} == {lost.trace_id}, (
        "the request brought no trace, and has one all the same"
    )
    (asked,) = log.asked
    assert asked[0] == 5


def test_all_attempts_of_the_lost_claim_are_written_and_no_others() -> None:
    # They leave with their request, so none of them has; those of other claims are their next owners' to write.
    spans = taken_over(
        Log(
            delta(*BEGUN, claim=1, attempt=7),
            delta(*BEGUN),
            delta(RunRetrying(delay_ms=1), first_seq=len(BEGUN)),
            delta(*BEGUN, attempt=2),
            delta(*BEGUN, claim=OURS, attempt=9),
            delta(*BEGUN, run_id="another"),
        )
    )
    retried = ["  invoke_agent scripted", "    turn 1 !never_ended", "      chat m !never_ended"]
    assert sorted(tree(spans)) == sorted([*LOST_TREE, *retried, *OUR_TREE])
    first, second = agent(spans, f"attempt-{LOST}-1"), agent(spans, f"attempt-{LOST}-2")
    assert [link.span_id for link in second.links] == [first.span_id]
    assert [link.span_id for link in agent(spans, "ours").links] == [second.span_id]


def test_events_that_were_sent_twice_count_once() -> None:
    events = delta(*BEGUN, TurnStarted(turn=2))
    assert len([line for line in tree(taken_over(Log(events, events))) if "turn" in line]) == 2


@pytest.mark.parametrize(
    ("last", "code"),
    [
        (RunEnded(status="completed"), None),
        (RunEnded(status="failed", error=Problem.of(ErrorCode.TOTAL_TIMEOUT)), "total_timeout"),
        (RunRetrying(error=Problem.of(ErrorCode.RATE_LIMITED), delay_ms=1), "rate_limited"),
    ],
)
def test_an_attempt_that_ended_before_its_worker_was_lost_has_the_end_that_is_on_the_log(
    last: ReadEvent, code: str | None
) -> None:
    spans = taken_over(Log(delta(*BEGUN, last)))
    lost = agent(spans, f"attempt-{LOST}-1")
    assert lost.attributes.get(names.ERROR_TYPE) == code
    assert lost.end_ns - lost.start_ns == len(BEGUN) * 10**9
    assert tree(spans)[0] == "process t !worker_lost", "its outcome was not committed"


@pytest.mark.parametrize("ends_before", [True, False])
def test_an_attempt_that_left_no_event_is_written_since_its_mark_says_that_it_was(*, ends_before: bool) -> None:
    # A request that kills its worker at once: its trace said that nothing had been tried.
    spans = taken_over(Log(), ends_before=ends_before)
    assert tree(spans) == ["process t !worker_lost", "  invoke_agent scripted !worker_lost", *OUR_TREE]
    lost = next(span for span in spans if span.attributes.get(names.LOST) and span.name.startswith("invoke"))
    ours = agent(spans, "ours")
    assert [(link.span_id, link.attributes[names.LINK]) for link in ours.links] == [(lost.span_id, "lost_attempt")]
    assert "none of its events was found" in lost.status_detail
    assert lost.attributes[names.SESSION_ID] == "session"
    assert lost.start_ns == 1_000_000 * Scene().admitted().timestamp_ms, "it began no earlier"


@pytest.mark.parametrize(
    "log", [Log(), Log(error=KafkaConnectionError()), Log(delta(*BEGUN), error=TimeoutError()), Log(error=OSError())]
)
def test_a_log_that_says_little_or_cannot_be_read_holds_nothing_open(log: Log) -> None:
    spans = taken_over(log, ends_before=True)
    assert tree(spans)[-2:] == OUR_TREE
    (ours,) = (span for span in spans if span.name == "process t" and span.status == "unset")
    assert names.ATTEMPT_LOST in {event.name for event in ours.events}


def test_a_claim_that_ends_while_the_log_is_read_holds_nothing_open() -> None:
    recorder = Recorder()
    scene = Scene()
    scene = replace(scene, process=process_of(recorder.maker(), scene.admitted()))
    admitted = scene.admitted()
    reading = asyncio.Event()

    async def read(partition: int, since_ms: int, seen: Callable[[Record], bool]) -> None:
        reading.set()
        await asyncio.Event().wait()

    async def lose_it() -> None:
        lost = LostAttempts(
            recorder.maker(), read, partition=5, claim=LOST, offsets=frozenset({admitted.position.offset})
        )
        lost.taken_again(record_of(admitted.request, admitted), admitted)
        writing = asyncio.create_task(lost.write())
        await reading.wait()
        writing.cancel()
        await asyncio.wait({writing})
        admitted.process.abandoned(names.PARTITION_LOST, began=True)

    asyncio.run(lose_it())
    assert sorted(tree(recorder.spans)) == [
        "  invoke_agent scripted !worker_lost",
        "process t !partition_lost",
        "process t !worker_lost",
    ]


def test_long_answers_are_not_kept() -> None:
    from agentstream.consumers.tracing.lost import _Lost

    scene = Scene()
    lost = _Lost(record_of(scene.admitted().request, scene.admitted()), scene.admitted())
    progress = ToolProgressed(tool_call_id="c", tool_name="bash", content="x" * 1_000)
    lost.saw(delta(*BEGUN, *[progress] * 100))
    assert [event.type for event in lost.attempts[1].events] == [
        "run.started",
        "turn.started",
        "message.started",
        "part.delta",
    ]
