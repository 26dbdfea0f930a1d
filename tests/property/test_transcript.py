"""However a run's records stand on the log, readers end up with one clean transcript, and they all with the same."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from agentstream.consumers.transcript import Fresh, ReaderRule, Transcript, Transcripts
from agentstream.schemas.events import (
    AnyEvent,
    MessageEnded,
    MessageStarted,
    PartDelta,
    PartEnded,
    PartStarted,
    RunEnded,
    RunRetrying,
    RunStarted,
    StreamEvents,
)
from agentstream.schemas.messages import Message, TextPart
from tests.support.runs import attempt_name, flush, result_of


@dataclass(frozen=True)
class Attempt:
    """One attempt as its writer wrote it."""

    claim: int
    number: int
    texts: tuple[str, ...]
    last: RunEnded | RunRetrying | None
    """None: it was lost with its worker."""
    records: tuple[StreamEvents, ...]

    @property
    def order(self) -> tuple[int, int]:
        return self.claim, self.number

    @property
    def last_seq(self) -> int:
        return self.records[-1].events[-1].seq

    @property
    def messages(self) -> tuple[Message, ...]:
        return tuple(Message.of_text("assistant", text) for text in self.texts)


def said(message_id: str, text: str) -> list[AnyEvent]:
    part = {"message_id": message_id, "part_index": 0, "part_type": "text"}
    return [
        MessageStarted(message_id=message_id),
        PartStarted.model_validate(part),
        *(PartDelta.model_validate({**part, "delta": letter}) for letter in text),
        PartEnded.model_validate({**part, "part": TextPart(content=text)}),
        MessageEnded(message_id=message_id, message=Message.of_text("assistant", text)),
    ]


@st.composite
def attempts(draw: st.DrawFn, claim: int, number: int, *, wins: bool) -> Attempt:
    texts = tuple(draw(st.lists(st.text("abc", min_size=1, max_size=5), max_size=3)))
    events: list[AnyEvent] = [RunStarted(harness="scripted")]
    for place, text in enumerate(texts):
        events += said(f"m{place}", text)
    last: RunEnded | RunRetrying | None = RunEnded(status="completed")
    if not wins:
        last = draw(st.sampled_from([last, RunRetrying(delay_ms=1), None]))
        events = events[: draw(st.integers(1, len(events)))]
    events += [last] if last else []
    cuts = sorted(draw(st.sets(st.integers(1, max(len(events) - 1, 1)), max_size=6)) - {len(events)})
    bounds = [0, *cuts, len(events)]
    records = tuple(
        flush(events[start:stop], claim=claim, attempt=number, first_seq=start)
        for start, stop in pairwise(bounds)
        if start < stop
    )
    return Attempt(claim=claim, number=number, texts=texts, last=last, records=records)


@st.composite
def runs(draw: st.DrawFn) -> list[Attempt]:
    """Attempts of one run in ascending order; the last one ended it."""
    orders = sorted(draw(st.sets(st.tuples(st.integers(1, 4), st.integers(1, 3)), min_size=1, max_size=4)))
    return [draw(attempts(*order, wins=order == orders[-1])) for order in orders]


@st.composite
def sent(draw: st.DrawFn, attempt: Attempt) -> list[StreamEvents]:
    """An attempt as it stands on the log: whatever was not acknowledged is sent again, from there on and in order."""
    log: list[StreamEvents] = []
    place = 0
    for _ in range(draw(st.integers(0, 3))):
        stop = draw(st.integers(place, len(attempt.records)))
        log += attempt.records[place:stop]
        place = draw(st.integers(0, stop))
    return [*log, *attempt.records[place:]]


@st.composite
def logs(draw: st.DrawFn) -> tuple[list[Attempt], list[StreamEvents]]:
    """A run, and its delta records in any order that keeps each writer's own: zombies write whenever they like."""
    run = draw(runs())
    queues = [draw(sent(attempt)) for attempt in run]
    log: list[StreamEvents] = []
    while queues := [queue for queue in queues if queue]:
        log.append(draw(st.sampled_from(queues)).pop(0))
    return run, log


def shown(fresh: Iterable[Fresh]) -> list[tuple[str, int]]:
    """What a screen holds that shows each event and clears when told to."""
    screen: list[tuple[str, int]] = []
    for each in fresh:
        screen = [] if each.voided else screen
        screen += [(event.type, event.seq) for event in each.events]
    return screen


def written(attempt: Attempt) -> list[tuple[str, int]]:
    return [(event.type, event.seq) for record in attempt.records for event in record.events]


@given(logs())
def test_zombies_retries_and_repetitions_leave_exactly_the_greatest_attempt_in_order(
    case: tuple[list[Attempt], list[StreamEvents]],
) -> None:
    run, log = case
    transcript = Transcript()
    assert shown([transcript.feed(record) for record in log]) == written(run[-1])
    assert transcript.messages() == run[-1].messages
    assert transcript.rule.attempt_id == attempt_name(*run[-1].order)
    assert transcript.rule.missing == ()


@given(logs(), st.data())
def test_it_does_not_matter_when_the_result_is_read(
    case: tuple[list[Attempt], list[StreamEvents]], data: st.DataObject
) -> None:
    run, log = case
    winner = run[-1]
    when = data.draw(st.integers(0, len(log)))
    transcript = Transcript()
    fresh = [transcript.feed(record) for record in log[:when]]
    fresh.append(transcript.settle(result_of(claim=winner.claim, attempt=winner.number, last_seq=winner.last_seq)))
    fresh += [transcript.feed(record) for record in log[when:]]
    assert shown(fresh) == written(winner)
    assert transcript.messages() == winner.messages
    assert transcript.rule.complete


@given(logs(), st.data())
def test_it_is_complete_no_earlier_than_the_last_event_of_the_attempt_that_the_result_names(
    case: tuple[list[Attempt], list[StreamEvents]], data: st.DataObject
) -> None:
    run, log = case
    winner = run[-1]
    rule = ReaderRule()
    rule.settle(result_of(claim=winner.claim, attempt=winner.number, last_seq=winner.last_seq))
    seen: list[tuple[str, int]] = []
    for record in log:
        assert not rule.complete or seen == written(winner)
        seen += shown([rule.feed(record)])
    assert rule.complete


@given(runs(), st.data())
def test_in_whatever_order_records_come_each_event_that_counts_is_given_once(
    run: list[Attempt], data: st.DataObject
) -> None:
    # Kafka keeps the order of a partition. Should a writer not, nothing is lost and nothing doubled all the same.
    records = [record for attempt in run for record in attempt.records]
    log = data.draw(st.permutations(records + data.draw(st.lists(st.sampled_from(records), max_size=5))))
    rule = ReaderRule()
    assert sorted(shown([rule.feed(record) for record in log]), key=lambda pair: pair[1]) == written(run[-1])
    assert rule.missing == ()


@given(runs(), st.data())
def test_missing_names_exactly_what_did_not_come(run: list[Attempt], data: st.DataObject) -> None:
    winner = run[-1]
    kept = data.draw(st.lists(st.sampled_from(winner.records), unique_by=lambda record: record.first_seq, min_size=1))
    rule = ReaderRule()
    came = {seq for _, seq in shown([rule.feed(record) for record in kept])}
    assert {seq for hole in rule.missing for seq in hole} == set(range(max(came))) - came
    assert all(hole for hole in rule.missing)


@given(logs(), st.data())
def test_a_gap_is_said_exactly_when_something_is_missing_before_what_came(
    case: tuple[list[Attempt], list[StreamEvents]], data: st.DataObject
) -> None:
    _, log = case
    start = data.draw(st.integers(0, len(log) - 1))
    rule = ReaderRule()
    for record in log[start:]:
        before, attempt = rule.missing, rule.attempt_id
        fresh = rule.feed(record)
        news = rule.missing if attempt != rule.attempt_id else rule.missing[len(before) :]
        assert fresh.gap == bool(news)


@given(st.lists(logs(), min_size=1, max_size=3), st.data())
def test_runs_that_share_a_topic_do_not_touch_each_other(
    cases: Sequence[tuple[list[Attempt], list[StreamEvents]]], data: st.DataObject
) -> None:
    queues = {
        f"run-{number}": [record.model_copy(update={"run_id": f"run-{number}"}) for record in log]
        for number, (_, log) in enumerate(cases)
    }
    transcripts = Transcripts()
    fresh: dict[str, list[Fresh]] = {run_id: [] for run_id in queues}
    while waiting := [run_id for run_id, queue in queues.items() if queue]:
        run_id = data.draw(st.sampled_from(waiting))
        fresh[run_id].append(transcripts.feed(queues[run_id].pop(0)))
    for number, (run, _) in enumerate(cases):
        assert shown(fresh[f"run-{number}"]) == written(run[-1])
