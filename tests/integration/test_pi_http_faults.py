"""Sidecars behind HTTP that lie, babble, fall silent or break off, before the real harness."""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import replace

import pytest
from pydantic import JsonValue

from agentstream.consumers.harness.pi_http import PiHttpHarness
from agentstream.consumers.harness.pi_http_stream import HttpPlace
from agentstream.consumers.harness.port import Credentials
from agentstream.schemas.errors import ErrorCode
from tests.integration.pi_fixtures import KEY, perform, request
from tests.integration.pi_http_fixtures import TOKEN

READY: dict[str, JsonValue] = {
    "type": "ready",
    "protocol": 1,
    "pi": "0",
    "node": "0",
    "max_line_bytes": 1 << 24,
    "pid": 1,
}
NOWHERE = Credentials(name="x", provider="offline", api_key=KEY, base_url="http://127.0.0.1:9")


Answering = Callable[[asyncio.StreamWriter], Awaitable[None]]


@asynccontextmanager
async def pretending(answer: Answering, *, silence_s: float = 20.0) -> AsyncIterator[PiHttpHarness]:
    """A harness before something that says the right thing on /health, and on /run what the test wants."""

    answering: set[asyncio.Task[None]] = set()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        answering.add(task)
        try:
            head = await reader.readuntil(b"\r\n\r\n")
            if head.startswith(b"GET /health"):
                body = json.dumps(READY).encode()
                writer.write(b"HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: %d\r\n\r\n" % len(body) + body)
            else:
                await answer(writer)
        finally:
            writer.close()
            with contextlib.suppress(OSError):
                await writer.wait_closed()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    place = HttpPlace(url=f"http://127.0.0.1:{port}", token=TOKEN, silence_s=silence_s, restart_s=0.3)
    async with server:
        async with PiHttpHarness(place) as harness:
            yield harness
        for task in answering:
            task.cancel()
        await asyncio.gather(*answering, return_exceptions=True)


def streaming(*lines: object, end: bool = True) -> Answering:
    """An answer of these lines; without its end the connection just breaks."""

    async def answer(writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nconnection: close\r\ntransfer-encoding: chunked\r\n\r\n")
        for line in lines:
            raw = line if isinstance(line, bytes) else json.dumps(line).encode() + b"\n"
            writer.write(b"%x\r\n%b\r\n" % (len(raw), raw))
        if end:
            writer.write(b"0\r\n\r\n")
        await writer.drain()

    return answer


def status(code: int) -> Answering:
    async def answer(writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 %d No\r\nconnection: close\r\ncontent-length: 2\r\n\r\nno" % code)
        await writer.drain()

    return answer


EVENT = {"type": "event", "run": "r", "n": 1, "event": {"type": "turn.started", "turn": 1}}
DONE = {"type": "done", "run": "r", "n": 2, "status": "completed", "finish_reason": "stop"}


@pytest.mark.parametrize(
    ("answer", "code", "retriable"),
    [
        (streaming(READY, EVENT), ErrorCode.HARNESS_CRASHED, None),
        (streaming(READY, EVENT, end=False), ErrorCode.HARNESS_CRASHED, None),
        (streaming(READY, EVENT, DONE, end=False), ErrorCode.HARNESS_CRASHED, None),
        (streaming(READY, {**EVENT, "n": 2}), ErrorCode.HARNESS_CRASHED, None),
        (streaming(READY, b"not JSON\n"), ErrorCode.HARNESS_CRASHED, None),
        (streaming(READY, READY), ErrorCode.HARNESS_CRASHED, None),
        (streaming(READY, *[b"x" * (1 << 20)] * 17), ErrorCode.HARNESS_CRASHED, None),
        (streaming({**READY, "protocol": 2}), ErrorCode.HARNESS_UNAVAILABLE, False),
        (streaming(EVENT), ErrorCode.HARNESS_UNAVAILABLE, False),
        (status(502), ErrorCode.HARNESS_UNAVAILABLE, None),
        (status(503), ErrorCode.HARNESS_UNAVAILABLE, None),
        (status(401), ErrorCode.HARNESS_UNAVAILABLE, False),
        (status(404), ErrorCode.HARNESS_UNAVAILABLE, False),
        (status(400), ErrorCode.INTERNAL, None),
        (status(413), ErrorCode.PAYLOAD_TOO_LARGE, None),
    ],
)
async def test_each_way_a_sidecar_misbehaves_has_its_code(
    answer: Answering, code: ErrorCode, retriable: bool | None
) -> None:
    async with pretending(answer) as harness:
        failed = (await perform(harness, request("hi", credentials=NOWHERE))).failed
    assert (failed.code, failed.retriable) == (code, retriable)
    assert "\n" not in failed.detail


async def test_lines_in_pieces_with_signs_of_life_between_are_put_together() -> None:
    whole = json.dumps(EVENT).encode()
    answer = streaming(READY, b"\n", whole[:20], whole[20:], b"\n\n" + json.dumps(DONE).encode(), b"\n")
    async with pretending(answer) as harness:
        outcome = await perform(harness, request("hi", credentials=NOWHERE))
    assert [event.type for event in outcome.events] == ["turn.started"]
    assert outcome.finished.finish_reason == "stop"


async def test_a_sidecar_that_says_nothing_for_too_long_is_lost() -> None:
    async def hang(writer: asyncio.StreamWriter) -> None:
        await streaming(READY, EVENT, end=False)(writer)
        await asyncio.Event().wait()

    async with pretending(hang, silence_s=0.2) as harness:
        failed = (await perform(harness, request("hi", credentials=NOWHERE))).failed
    assert (failed.code, failed.detail) == (ErrorCode.HARNESS_CRASHED, "the Pi sidecar said nothing for 0.2 s")
    assert failed.lost_with_others


async def test_signs_of_life_do_not_outlast_the_total_time() -> None:
    async def for_ever(writer: asyncio.StreamWriter) -> None:
        await streaming(READY, end=False)(writer)
        while not writer.is_closing():
            writer.write(b"1\r\n\n\r\n")
            await asyncio.sleep(0.02)

    wanted = request("hi", credentials=NOWHERE)
    async with pretending(for_ever) as harness:
        short = replace(wanted, limits=replace(wanted.limits, total_ms=300))
        failed = (await perform(harness, short)).failed
    assert failed.code is ErrorCode.TOTAL_TIMEOUT
