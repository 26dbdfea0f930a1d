"""Whatever happens to producers, a reader who drops what he has seen gets each attempt in order, without gaps."""

import asyncio
from collections.abc import Sequence

from aiokafka.errors import KafkaConnectionError
from hypothesis import given, settings
from hypothesis import strategies as st

from agentstream.producers.deltas import DeltaPublisher
from agentstream.schemas.headers import DeltaHeaders
from agentstream.schemas.trace import TraceContext
from tests.support.broken_brokers import BrokenBrokers
from tests.virtual_time import in_virtual_time

MAX_RECORD_BYTES = 1_000
TRACE = TraceContext(trace_id="a" * 32, span_id="b" * 16)
Step = tuple[str, int]
steps = st.lists(
    st.one_of(
        st.tuples(st.just("publish"), st.integers(0, 2)),
        st.tuples(st.just("publish"), st.integers(0, 2)),
        st.tuples(st.sampled_from(["acknowledge", "break"]), st.integers(0, 4)),
        st.tuples(st.sampled_from(["hold", "go on", "no start", "refused", "too large", "wait"]), st.just(1)),
    ),
    max_size=60,
)


class Play:
    """Three attempts in two partitions, and what the steps do to them."""

    def __init__(self, publisher: DeltaPublisher, brokers: BrokenBrokers) -> None:
        self.publisher, self.brokers = publisher, brokers
        self.published = [0, 0, 0]
        self.spoilt: set[int] = set()

    async def step(self, what: str, number: int) -> None:
        match what:
            case "publish":
                await self.publish(number)
            case "acknowledge":
                self.brokers.acknowledge(number or None, all_else_held=True)
            case "break":
                self.brokers.break_down(written=number)
            case "hold":
                self.brokers.hold()
            case "go on":
                self.brokers.acknowledge()
            case "no start":
                self.brokers.start_errors.append(KafkaConnectionError("away"))
            case "refused":
                await self.publish(0, spoilt=True)
            case "too large":
                await self.publish(1, spoilt=True, padding=MAX_RECORD_BYTES)
            case _:
                await asyncio.sleep(1)
        for _ in range(5):
            await asyncio.sleep(0)

    async def publish(self, attempt: int, *, spoilt: bool = False, padding: int = 0) -> None:
        seq = self.published[attempt]
        self.published[attempt] += 1
        value = f"{attempt} {seq}".encode()
        if spoilt:
            self.spoilt.add(attempt)
            self.brokers.too_large.add(value)
        under_way = self.publisher.known(str(attempt)) or self.publisher.begin(
            ("t", attempt % 2), b"k", DeltaHeaders("run", str(attempt), TRACE)
        )
        await self.publisher.publish(under_way, value + b" " * padding, seq, seq)


def read(written: Sequence[bytes], attempt: int) -> list[int]:
    """By the reader's rule: what was seen is dropped."""
    pairs = [tuple(map(int, value.split())) for value in written]
    return list(dict.fromkeys(seq for name, seq in pairs if name == attempt))


@settings(max_examples=200, deadline=None)
@given(steps)
def test_every_attempt_is_one_clean_stream_and_its_result_says_how_far(script: list[Step]) -> None:
    async def play() -> None:
        brokers = BrokenBrokers()
        async with DeltaPublisher(brokers.new_producer, max_record_bytes=MAX_RECORD_BYTES) as publisher:
            acting = Play(publisher, brokers)
            for step in script:
                await acting.step(*step)
            brokers.acknowledge()
            settled = [await publisher.settle(str(attempt), 1_000) for attempt in range(3)]
        for attempt, count in enumerate(acting.published):
            seen = read(brokers.written, attempt)
            assert seen == list(range(len(seen))), "out of order, or with a gap"
            if attempt in acting.spoilt:
                assert settled[attempt].deltas == "partial"
                assert set(range(settled[attempt].last_seq + 1)) <= set(seen)
            else:
                assert settled[attempt].deltas == "complete"
                assert settled[attempt].last_seq == count - 1
                assert seen == list(range(count))

    in_virtual_time(play())
