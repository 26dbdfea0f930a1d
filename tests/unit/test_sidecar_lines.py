"""What a process writes, as lines; and pings that are shared."""

import asyncio
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentstream.consumers.harness.sidecar_lines import LineReader, LineWriter
from agentstream.consumers.harness.sidecar_pings import Pings


async def rounds() -> None:
    """All that can be done without anything from outside is done: three tasks deep."""
    for _ in range(4):
        await asyncio.sleep(0)


async def lines_of(chunks: Sequence[bytes], *, most: int = 100) -> list[bytes]:
    """What is read of a stream that gives these pieces, each before the next one comes."""
    stream = asyncio.StreamReader()
    reader, found = LineReader(stream, most=most), list[bytes]()

    async def read() -> None:
        while lines := await reader.read():
            found.extend(lines)

    reading = asyncio.create_task(read())
    for chunk in chunks:
        stream.feed_data(chunk)
        await rounds()
    stream.feed_eof()
    await reading
    return found


@given(lines=st.lists(st.binary(max_size=20).map(lambda line: line.replace(b"\n", b" ")), max_size=8), data=st.data())
def test_lines_are_the_same_wherever_the_pipe_cuts_them(lines: list[bytes], data: st.DataObject) -> None:
    whole = b"".join(line + b"\n" for line in lines)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(whole)), max_size=6)))
    chunks = [whole[start:end] for start, end in zip([0, *cuts], [*cuts, len(whole)], strict=True) if start < end]
    assert asyncio.run(lines_of(chunks)) == lines


async def test_a_line_that_the_end_cut_off_is_given_as_it_is() -> None:
    assert await lines_of([b"one\ntw"]) == [b"one", b"tw"]


async def test_a_line_may_be_as_long_as_agreed_and_no_longer_however_it_comes() -> None:
    assert await lines_of([b"x" * 6, b"y" * 4 + b"\n"], most=10) == [b"xxxxxxyyyy"]
    with pytest.raises(ValueError, match="longer than 10 bytes"):
        await lines_of([b"x" * 6, b"y" * 5], most=10)
    with pytest.raises(ValueError, match="longer than 10 bytes"):
        await lines_of([b"x" * 6, b"y" * 5 + b"\n"], most=10)


class Pieces(asyncio.WriteTransport):
    """Keeps what is written, a system call each."""

    def __init__(self) -> None:
        super().__init__()
        self.found = list[bytes]()
        self.closed = False

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self.found.append(bytes(data))

    def close(self) -> None:
        self.closed = True

    def is_closing(self) -> bool:
        return self.closed


def writer_of(transport: Pieces) -> LineWriter:
    loop = asyncio.get_running_loop()
    stream = asyncio.StreamWriter(transport, asyncio.StreamReaderProtocol(asyncio.StreamReader()), None, loop)
    return LineWriter(stream, loop)


async def test_lines_of_one_round_are_written_in_one_piece_in_order() -> None:
    pipe = Pieces()
    writer = writer_of(pipe)
    for line in (b"one\n", b"two\n", b"three\n"):
        writer.write(line)
    await rounds()
    writer.write(b"four\n")
    await rounds()
    writer.close()
    assert pipe.found == [b"one\ntwo\nthree\n", b"four\n"]


async def test_what_is_not_written_yet_is_written_before_the_end_and_nothing_after_it() -> None:
    pipe = Pieces()
    writer = writer_of(pipe)
    writer.write(b"one\n")
    writer.close()
    writer.write(b"late\n")
    await rounds()
    assert (pipe.found, pipe.closed) == ([b"one\n"], True)


async def test_who_asks_at_the_same_time_shares_a_ping_and_who_asks_later_waits_for_another() -> None:
    sent = list[int]()
    pings = Pings(sent.append)
    first, second = asyncio.create_task(pings.ask()), asyncio.create_task(pings.ask())
    await rounds()
    assert sent == [1]
    third = asyncio.create_task(pings.ask())
    await rounds()
    assert sent == [1, 2]
    pings.answer(1)
    await asyncio.gather(first, second)
    await rounds()
    assert not third.done()
    pings.answer(2)
    await third


async def test_nobody_waits_for_a_ping_when_no_answer_can_come_sent_or_not() -> None:
    pings = Pings(lambda _: None)
    sent = asyncio.create_task(pings.ask())
    await rounds()
    unsent = asyncio.create_task(pings.ask())
    await asyncio.sleep(0)
    pings.answer_all()
    await asyncio.gather(sent, unsent)


async def test_one_who_stops_waiting_takes_the_answer_from_nobody() -> None:
    sent = list[int]()
    pings = Pings(sent.append)
    gone, stays = asyncio.create_task(pings.ask()), asyncio.create_task(pings.ask())
    await rounds()
    gone.cancel()
    await asyncio.wait({gone})
    pings.answer(1)
    await stays
