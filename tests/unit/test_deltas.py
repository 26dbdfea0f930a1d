"""Events go out in order, again after a broken producer, and never hold a run up. In virtual time: nothing sleeps."""

import asyncio
from collections.abc import Callable, Coroutine

import pytest
from aiokafka.errors import KafkaConnectionError

from agentstream.producers import deltas
from agentstream.producers.delta_queue import Attempt
from agentstream.producers.deltas import FLUSH_SECONDS, PUBLISH_SECONDS, SETTLE_SECONDS, DeltaPublisher, Settled
from agentstream.schemas.headers import DeltaHeaders
from agentstream.schemas.trace import TraceContext
from tests.support.broken_brokers import RECORDS_PER_BATCH, BrokenBrokers
from tests.virtual_time import in_virtual_time

TRACE = TraceContext(trace_id="a" * 32, span_id="b" * 16)


def time() -> float:
    return asyncio.get_running_loop().time()


def attempt(publisher: DeltaPublisher, name: str, partition: int = 0) -> Attempt:
    known = publisher.known(name)
    return known or publisher.begin(("deltas", partition), b"k", DeltaHeaders("run", name, TRACE))


async def publish(publisher: DeltaPublisher, *names: str, size: int = 0, partition: int = 0) -> None:
    """`a0` is the event 0 of the attempt `a`."""
    for name in names:
        value, seq = name.encode() + b" " * size, int(name[1:])
        await publisher.publish(attempt(publisher, name[0], partition), value, seq, seq)


async def quiet() -> None:
    for _ in range(20):
        await asyncio.sleep(0)


def written(brokers: BrokenBrokers) -> list[str]:
    return [value.decode() for value in brokers.written]


def with_publisher(
    scenario: Callable[[DeltaPublisher, BrokenBrokers], Coroutine[object, object, None]],
) -> BrokenBrokers:
    async def play() -> BrokenBrokers:
        brokers = BrokenBrokers()
        async with DeltaPublisher(brokers.new_producer) as publisher:
            await scenario(publisher, brokers)
        return brokers

    return in_virtual_time(play())


def complete(last_seq: int) -> Settled:
    return Settled(deltas="complete", last_seq=last_seq)


def partial(last_seq: int) -> Settled:
    return Settled(deltas="partial", last_seq=last_seq)


def test_events_are_written_in_order_and_the_result_knows_that_all_were() -> None:
    async def scenario(publisher: DeltaPublisher, brokers: BrokenBrokers) -> None:
        await publish(publisher, "a0", "b0", "a1", "a7")
        assert [await publisher.settle("a"), await publisher.settle("b")] == [complete(7), complete(0)]
        assert written(brokers) == ["a0", "b0", "a1", "a7"]
        assert time() == 0

    with_publisher(scenario)


def test_each_record_bears_its_attempt_s_key_and_headers_and_where_it_begins() -> None:
    async def scenario(publisher: DeltaPublisher, brokers: BrokenBrokers) -> None:
        under_way = {
            name: publisher.begin(("deltas", 0), f"key of {name}".encode(), DeltaHeaders("run", name, TRACE))
            for name in ("a", "b")
        }
        for name, first_seq in (("a", 0), ("b", 0), ("a", 3)):
            await publisher.publish(under_way[name], f"{name}{first_seq}".encode(), first_seq, first_seq + 2)
        assert await publisher.settle("a") == complete(5)
        assert brokers.around == {
            f"{name}{seq}".encode(): (f"key of {name}".encode(), DeltaHeaders("run", name, TRACE).of(seq))
            for name, seq in (("a", 0), ("b", 0), ("a", 3))
        }

    with_publisher(scenario)


def test_an_attempt_without_events_is_complete() -> None:
    async def scenario(publisher: DeltaPublisher, _brokers: BrokenBrokers) -> None:
        assert await publisher.settle("nobody") == complete(-1)

    with_publisher(scenario)


def test_a_result_waits_for_its_events() -> None:
    async def scenario(publisher: DeltaPublisher, brokers: BrokenBrokers) -> None:
        brokers.hold()
        await publish(publisher, "a0")
        asyncio.get_running_loop().call_later(9.9, brokers.acknowledge)
        assert await publisher.settle("a") == complete(0)
        assert round(time(), 6) == 9.9

    with_publisher(scenario)


def test_a_result_waits_ten_seconds_at_most_and_then_says_what_is_sure() -> None:
    async def scenario(publisher: DeltaPublisher, brokers: BrokenBrokers) -> None:
        await publish(publisher, "a0", "a1")
        await quiet()
        brokers.hold()
        await publish(publisher, "a2", "a3")
        assert await publisher.settle("a") == partial(1)
        assert time() == SETTLE_SECONDS

    with_publisher(scenario)


def test_a_new_producer_sends_again_what_was_not_acknowledged_in_order() -> None:
    async def scenario(publisher: DeltaPublisher, brokers: BrokenBrokers) -> None:
        await publish(publisher, "a0")
        await quiet()
        brokers.hold()
        await publish(publisher, "a1", "b0")
        await quiet()
        await publish(publisher, "a2", "a3")
        # Written, but the answer was lost: readers drop what they have seen.
        brokers.break_down(written=1)
        brokers.acknowledge()
        await publish(publisher, "a4")
        assert [await publisher.settle("a"), await publisher.settle("b")] == [complete(4), complete(0)]
        assert written(brokers) == ["a0", "a1", "b0", "a1", "b0", "a2", "a3", "a4"]
        assert publisher.rebuilt == 1

    with_publisher(scenario)


def second_partition_first(brokers: BrokenBrokers) -> None:
    """Its leader answers, the other one is silent."""
    assert brokers.current is not None
    brokers.current._under_way.reverse()
    brokers.acknowledge(1)


def test_what_another_partition_s_leader_acknowledged_is_not_sent_again() -> None:
    async def scenario(publisher: DeltaPublisher, brokers: BrokenBrokers) -> None:
        brokers.hold()
        await publish(publisher, "a0")
        await publish(publisher, "b0", partition=1)
        await quiet()
        second_partition_first(brokers)
        await quiet()
        brokers.break_down()
        brokers.acknowledge()
        assert await publisher.settle("a") == complete(0)
        assert written(brokers) == ["b0", "a0"]

    with_publisher(scenario)


def test_while_the_brokers_are_away_nobody_waits_to_publish_and_producers_are_tried_ever_more_slowly() -> None:
    async def scenario(publisher: DeltaPublisher, brokers: BrokenBrokers) -> None:
        brokers.start_errors = [KafkaConnectionError("away")] * 9
        await publish(publisher, *(f"a{seq}" for seq in range(100)))
        assert time() == 0
        assert await publisher.settle("a", 60) == complete(99)
        pauses = [after - before for before, after in zip(brokers.started, brokers.started[1:], strict=False)]
        assert [round(pause, 3) for pause in pauses] == [0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 5.0, 5.0, 5.0]

    with_publisher(scenario)


def test_after_an_outage_the_next_broken_producer_is_replaced_at_once_again() -> None:
    async def scenario(publisher: DeltaPublisher, brokers: BrokenBrokers) -> None:
        brokers.start_errors = [KafkaConnectionError("away")] * 9
        await publish(publisher, "a0")
        assert await publisher.settle("a", 60) == complete(0)
        brokers.hold()
        await publish(publisher, "b0")
        await quiet()
        brokers.break_down()
        brokers.acknowledge()
        at = time()
        assert await publisher.settle("b") == complete(0)
        assert round(time() - at, 6) == 0.1

    with_publisher(scenario)


def test_a_partition_whose_leader_is_silent_holds_up_no_other() -> None:
    async def scenario(publisher: DeltaPublisher, brokers: BrokenBrokers) -> None:
        brokers.hold()
        await publish(publisher, "a0")
        await publish(publisher, "b0", partition=1)
        await quiet()
        await publish(publisher, "a1", "a2")
        await publish(publisher, "b1", "b2", partition=1)
        second_partition_first(brokers)
        await quiet()
        second_partition_first(brokers)
        assert await publisher.settle("b") == complete(2)
        assert (written(brokers), time()) == (["b0", "b1", "b2"], 0)
        brokers.acknowledge()
        assert await publisher.settle("a") == complete(2)

    with_publisher(scenario)


def test_what_waits_for_a_leader_that_is_not_known_goes_with_the_next_producer() -> None:
    # aiokafka asks for it for up to 40 s.
    async def scenario(publisher: DeltaPublisher, brokers: BrokenBrokers) -> None:
        brokers.unanswered = {b"a0"}
        await publish(publisher, "a0", "a1")
        await quiet()
        brokers.send_errors = {b"b0": KafkaConnectionError("gone")}
        await publish(publisher, "b0", partition=1)
        await quiet()
        brokers.send_errors = {}
        assert [await publisher.settle("a"), await publisher.settle("b")] == [complete(1), complete(0)]
        assert written(brokers) == ["a0", "a1", "b0"]

    with_publisher(scenario)


def test_what_comes_while_a_batch_is_under_way_goes_behind_it_as_one() -> None:
    # Two at once of one partition might be written in the other order, and a reader saw a gap.
    async def scenario(publisher: DeltaPublisher, brokers: BrokenBrokers) -> None:
        brokers.hold()
        await publish(publisher, "a0")
        await quiet()
        await publish(publisher, "a1", "b0", "a2")
        await quiet()
        brokers.acknowledge(1)
        await quiet()
        assert written(brokers) == ["a0"]
        assert await publisher.settle("b", 1) == partial(-1)
        brokers.acknowledge(1)
        assert await publisher.settle("a") == complete(2)
        assert written(brokers) == ["a0", "a1", "b0", "a2"]

    with_publisher(scenario)


def test_what_does_not_go_into_a_batch_goes_with_the_next() -> None:
    async def scenario(publisher: DeltaPublisher, brokers: BrokenBrokers) -> None:
        brokers.hold()
        names = [f"a{seq}" for seq in range(RECORDS_PER_BATCH + 1)]
        await publish(publisher, *names)
        await quiet()
        brokers.acknowledge(1)
        await quiet()
        assert written(brokers) == names[:-1]
        brokers.acknowledge()
        assert await publisher.settle("a") == complete(RECORDS_PER_BATCH)
        assert written(brokers) == names

    with_publisher(scenario)


def test_a_producer_that_starts_and_never_sends_is_replaced_ever_more_slowly() -> None:
    async def scenario(publisher: DeltaPublisher, brokers: BrokenBrokers) -> None:
        # What aiokafka says of a partition that does not exist.
        brokers.send_errors = {b"a0": AssertionError("Unrecognized partition")}
        await publish(publisher, "a0")
        assert await publisher.settle("a", 60) == partial(-1)
        assert 10 < len(brokers.started) < 20
        brokers.send_errors = {}
        await asyncio.sleep(10)
        assert written(brokers) == ["a0"]

    with_publisher(scenario)


def test_no_bug_ends_the_pump() -> None:
    async def scenario(publisher: DeltaPublisher, brokers: BrokenBrokers) -> None:
        brokers.start_errors = [RuntimeError("a bug"), ValueError("another")]
        await publish(publisher, "a0")
        assert await publisher.settle("a") == complete(0)

    with_publisher(scenario)


def test_a_record_too_large_to_be_sent_ends_its_attempt_s_events_and_nobody_else_s() -> None:
    async def scenario(publisher: DeltaPublisher, brokers: BrokenBrokers) -> None:
        await publish(publisher, "a0")
        await publish(publisher, "a1", size=2_000_000)
        await publish(publisher, "a2", "b0")
        assert not publisher.publish_if_idle(attempt(publisher, "c"), b" " * 2_000_000)
        assert list(publisher._attempts) == ["a", "b"]
        assert written(brokers) == []
        assert [await publisher.settle("a"), await publisher.settle("b")] == [partial(0), complete(0)]
        assert (len(brokers.started), publisher.dropped, time()) == (1, 1, 0)
        assert (written(brokers), publisher._held_bytes) == (["a0", "b0"], 0)

    with_publisher(scenario)


def test_a_record_that_the_brokers_refuse_ends_its_attempt_s_events_and_costs_the_producer() -> None:
    async def scenario(publisher: DeltaPublisher, brokers: BrokenBrokers) -> None:
        brokers.too_large = {b"a1"}
        await publish(publisher, "a0", "a1", "b0")
        # An idempotent producer that skipped a sequence number can send nothing any more.
        assert [await publisher.settle("a"), await publisher.settle("b")] == [partial(0), complete(0)]
        # Twice: refused it may have been for its batch, so it is tried alone.
        assert (len(brokers.started), publisher.dropped) == (3, 1)
        await publish(publisher, "c0")
        assert await publisher.settle("c") == complete(0)

    with_publisher(scenario)


def test_a_record_that_was_refused_alone_is_not_tried_again() -> None:
    async def scenario(publisher: DeltaPublisher, brokers: BrokenBrokers) -> None:
        brokers.too_large = {b"a0"}
        await publish(publisher, "a0")
        assert await publisher.settle("a") == partial(-1)
        assert (publisher.dropped, publisher._held_bytes, time()) == (1, 0, 0)
        await publish(publisher, "b0")
        assert await publisher.settle("b") == complete(0)
        assert len(brokers.started) == 2

    with_publisher(scenario)


def test_nothing_of_an_attempt_is_sent_behind_a_record_that_was_refused() -> None:
    # Queued before the refusal was known, the later ones went out all the same, and a reader saw a gap.
    async def scenario(publisher: DeltaPublisher, brokers: BrokenBrokers) -> None:
        brokers.too_large = {b"a1"}
        await publish(publisher, "a0", "a1", "a2", "b0", "a3")
        assert [await publisher.settle("a"), await publisher.settle("b")] == [partial(0), complete(0)]
        assert written(brokers) == ["a0", "b0"]
        assert publisher._held_bytes == 0

    with_publisher(scenario)


def test_an_attempt_that_was_announced_is_the_same_when_it_begins() -> None:
    async def scenario(publisher: DeltaPublisher, brokers: BrokenBrokers) -> None:
        brokers.too_large = {b"a0"}
        for name in ("a", "b"):
            assert publisher.publish_if_idle(attempt(publisher, name), f"{name}0".encode())
        await publish(publisher, "a1", "b1")
        assert [await publisher.settle("a"), await publisher.settle("b")] == [partial(-1), complete(1)]
        assert written(brokers) == ["b0", "b1"]

    with_publisher(scenario)


def test_a_refused_batch_costs_only_the_attempt_whose_record_is_too_large() -> None:
    # The brokers refuse a batch as a whole: the attempts of all runs in it ended as partial.
    async def scenario(publisher: DeltaPublisher, brokers: BrokenBrokers) -> None:
        brokers.too_large = {b"b0"}
        await publish(publisher, "a0", "b0", "c0", "a1", "b1")
        settled = [await publisher.settle(name) for name in "abc"]
        assert settled == [complete(1), partial(-1), complete(0)]
        assert written(brokers) == ["a0", "c0", "a1"]
        assert publisher.dropped == 1

    with_publisher(scenario)


def test_an_end_that_is_cut_short_leaves_no_pump_behind() -> None:
    # Cancelled while it flushed, it left the pump and its producer to go on without anybody who knew of them.
    async def play() -> None:
        brokers = BrokenBrokers()
        brokers.hold()
        publisher = DeltaPublisher(brokers.new_producer)
        await publisher.__aenter__()
        await publish(publisher, "a0")
        await quiet()
        ending = asyncio.create_task(publisher.__aexit__())
        await quiet()
        ending.cancel()
        await asyncio.wait({ending})
        assert ending.cancelled()
        assert asyncio.all_tasks() == {asyncio.current_task()}

    in_virtual_time(play())


@pytest.fixture
def little_room(monkeypatch: pytest.MonkeyPatch) -> int:
    monkeypatch.setattr(deltas, "MAX_HELD_BYTES", 3 * 3_000)  # two in one partition leave room for one
    return 2_500


def test_without_room_publishing_waits_a_second_and_then_the_attempt_s_events_end(little_room: int) -> None:
    async def scenario(publisher: DeltaPublisher, brokers: BrokenBrokers) -> None:
        brokers.hold()
        await publish(publisher, "a0", "a1", size=little_room)
        await quiet()
        assert time() == 0
        await publish(publisher, "a2", size=little_room)
        assert (time(), publisher.dropped) == (PUBLISH_SECONDS, 1)
        await publish(publisher, "a3", "a4", size=little_room)
        assert time() == PUBLISH_SECONDS, "a gap would be worse than an end, and nobody waits again"
        brokers.acknowledge()
        await quiet()
        await publish(publisher, "a5", size=little_room)
        assert await publisher.settle("a") == partial(1)
        assert written(brokers) == ["a0", "a1"]

    with_publisher(scenario)


def test_a_partition_whose_leader_is_away_leaves_room_for_the_others(little_room: int) -> None:
    async def scenario(publisher: DeltaPublisher, brokers: BrokenBrokers) -> None:
        brokers.unanswered = {b"a0"}
        await publish(publisher, "a0", "a1", "a2", size=little_room)
        assert (time(), publisher.dropped) == (PUBLISH_SECONDS, 1)
        for name in ("b0", "c0", "d0"):
            await publish(publisher, name, size=little_room, partition=1)
            assert await publisher.settle(name[0]) == complete(0)
        assert (time(), publisher.dropped) == (PUBLISH_SECONDS, 1)

    with_publisher(scenario)


def test_room_that_comes_in_time_is_used(little_room: int) -> None:
    async def scenario(publisher: DeltaPublisher, brokers: BrokenBrokers) -> None:
        brokers.hold()
        await publish(publisher, "a0", "b0", size=little_room)
        asyncio.get_running_loop().call_later(0.9, brokers.acknowledge)
        await publish(publisher, "a1", size=little_room)
        assert (round(time(), 6), publisher.dropped) == (0.9, 0)
        assert await publisher.settle("a") == complete(1)

    with_publisher(scenario)


def test_room_is_given_back_whatever_became_of_a_record(little_room: int) -> None:
    async def scenario(publisher: DeltaPublisher, brokers: BrokenBrokers) -> None:
        brokers.too_large = {b"a0", b"b0"}
        await publish(publisher, "a0", "b0", size=little_room)
        publisher.forget("a")
        await publisher.settle("b")
        await asyncio.sleep(1)
        at = time()
        await publish(publisher, "c0", "c1", size=little_room)
        assert await publisher.settle("c") == complete(1)
        assert (time(), publisher.dropped) == (at, 2)

    with_publisher(scenario)


def test_events_of_a_forgotten_attempt_still_go_out() -> None:
    async def scenario(publisher: DeltaPublisher, brokers: BrokenBrokers) -> None:
        brokers.hold()
        await publish(publisher, "a0")
        publisher.forget("a")
        publisher.forget("a")
        brokers.acknowledge()
        await quiet()
        assert written(brokers) == ["a0"]

    with_publisher(scenario)


def test_nothing_of_an_attempt_stays_behind_even_if_its_run_is_cancelled_while_it_settles() -> None:
    async def scenario(publisher: DeltaPublisher, brokers: BrokenBrokers) -> None:
        brokers.hold()
        await publish(publisher, "a0", "b0")
        settling = asyncio.create_task(publisher.settle("a"))
        await asyncio.sleep(1)
        settling.cancel()
        await asyncio.wait({settling})
        brokers.acknowledge()
        await publisher.settle("b")
        assert publisher._attempts == {}

    with_publisher(scenario)


def test_at_the_end_what_is_queued_still_goes_out() -> None:
    async def scenario(publisher: DeltaPublisher, brokers: BrokenBrokers) -> None:
        await publish(publisher, "a0", "a1")

    assert written(with_publisher(scenario)) == ["a0", "a1"]


def test_the_end_does_not_wait_long_for_brokers_that_are_away() -> None:
    async def play() -> None:
        brokers = BrokenBrokers()
        brokers.hold()
        async with DeltaPublisher(brokers.new_producer) as publisher:
            await publish(publisher, "a0")
            await quiet()
        assert FLUSH_SECONDS <= time() < FLUSH_SECONDS + 5
        assert asyncio.all_tasks() == {asyncio.current_task()}

    in_virtual_time(play())
