"""A harness that breaks the port's promises is survived: one failed result, nothing endless."""

import asyncio
import logging
from collections.abc import AsyncIterator, Callable
from dataclasses import replace

import pytest
from pydantic import JsonValue

from agentstream.consumers.agent_config import DEFAULT_LIMITS
from agentstream.consumers.harness.port import Failed, Finished, HarnessEvent, HarnessRequest, Terminal
from agentstream.consumers.pump import QUEUE_EVENTS
from agentstream.schemas.errors import ErrorCode
from agentstream.schemas.events import MessageEnded, RunRetrying, TurnEnded, TurnStarted
from agentstream.schemas.messages import Cost, Message, Usage
from tests.unit.playing import Faulty, Played, Scene, play
from tests.virtual_time import START, now

Events = AsyncIterator[HarnessEvent | Terminal]
SAID = MessageEnded(turn=1, message_id="m", message=Message.of_text("assistant", "said"))
DONE = Finished(finish_reason="stop")


def limited(options: dict[str, JsonValue], *, max_attempts: int = 1, **changed: int) -> Played:
    return play(Scene(options=options, limits=replace(DEFAULT_LIMITS, max_attempts=max_attempts, **changed)))


async def no_terminal(_: HarnessRequest) -> Events:
    yield SAID


async def two_terminals(_: HarnessRequest) -> Events:
    yield SAID
    yield DONE
    yield DONE


async def event_after_end(_: HarnessRequest) -> Events:
    yield DONE
    yield SAID


async def raises_after_end(_: HarnessRequest) -> Events:
    yield SAID
    yield DONE
    raise OSError("/home/someone/secret-path went away")


async def raises_at_once(_: HarnessRequest) -> Events:
    if now() == START:
        raise KeyError("oops")
    yield SAID


async def ends_for_a_reason_that_nobody_knows(_: HarnessRequest) -> Events:
    yield SAID
    yield Finished(finish_reason="bored")  # type: ignore[arg-type]


async def cancels_itself(_: HarnessRequest) -> Events:
    yield SAID
    raise asyncio.CancelledError


async def yields_nonsense(_: HarnessRequest) -> Events:
    yield "hello"  # type: ignore[misc]


def not_even_a_generator(_: HarnessRequest) -> Events:
    raise TypeError("broken from the start")


@pytest.mark.parametrize(
    ("harness", "code"),
    [
        (no_terminal, "harness_crashed"),
        (two_terminals, "internal"),
        (event_after_end, "internal"),
        (raises_after_end, "harness_crashed"),
        (raises_at_once, "harness_crashed"),
        (cancels_itself, "harness_crashed"),
        (yields_nonsense, "internal"),
        (ends_for_a_reason_that_nobody_knows, "internal"),
        (not_even_a_generator, "harness_crashed"),
    ],
)
def test_a_broken_harness_is_a_failed_run(
    harness: Callable[[HarnessRequest], Events], code: str, caplog: pytest.LogCaptureFixture
) -> None:
    faulty = Faulty(harness)
    played = play(Scene(harness=faulty, limits=replace(DEFAULT_LIMITS, max_attempts=1)))
    assert (played.result.status, played.code) == ("failed", code)
    assert played.result.error is not None
    assert "Traceback" not in (played.result.error.detail or "")
    assert "/home" not in (played.result.error.detail or "")
    assert played.types[-1] == "run.ended"
    assert ("harness raised:\n" in caplog.text) is (played.result.error.detail or "").startswith("the harness raised")


def test_the_scripted_misbehaviours_are_what_they_say() -> None:
    assert limited({"no_terminal": True}).code == "harness_crashed"
    assert limited({"two_terminals": True}).code == "internal"
    raised = limited({"raise": True})
    assert raised.code == "harness_crashed"
    assert raised.result.error is not None
    assert raised.result.error.detail == "the harness raised RuntimeError"


def test_a_harness_that_lingers_after_its_end_still_has_its_word() -> None:
    async def lingers(_: HarnessRequest) -> Events:
        yield SAID
        yield DONE
        await asyncio.sleep(3_600)

    played = play(Scene(harness=Faulty(lingers)))
    assert (played.result.status, played.result.text) == ("completed", "said")
    assert played.ended == pytest.approx(2.0)


def test_a_harness_that_ends_without_another_word_is_noticed_at_once() -> None:
    async def ends_later(_: HarnessRequest) -> Events:
        yield SAID
        yield DONE
        await asyncio.sleep(1)

    async def fails_later(_: HarnessRequest) -> Events:
        yield SAID
        await asyncio.sleep(1)
        raise OSError("gone")

    assert play(Scene(harness=Faulty(ends_later))).ended == pytest.approx(1.0)
    once = replace(DEFAULT_LIMITS, max_attempts=1)
    assert play(Scene(harness=Faulty(fails_later), limits=once)).ended == pytest.approx(1.0)


def test_a_harness_that_ignores_cancellation_is_left_behind_after_two_seconds(
    caplog: pytest.LogCaptureFixture,
) -> None:
    with caplog.at_level(logging.INFO):
        played = limited({"hang": "ignore_cancel", "text": "a b"}, idle_ms=5_000)
    assert (played.result.status, played.code) == ("failed", "idle_timeout")
    assert played.ended == pytest.approx(7.0)
    assert played.abandoned == 1
    assert "left behind: it ignores its cancellation" in caplog.text


def test_one_that_answers_cancellation_with_more_events_is_not_listened_to() -> None:
    async def stubborn(_: HarnessRequest) -> Events:
        yield TurnStarted(turn=1)
        try:
            await asyncio.sleep(3_600)
        except asyncio.CancelledError:
            # More than the queue takes: a pump that went on listening would wait for room for ever.
            for _more in range(2 * QUEUE_EVENTS):
                yield SAID
            yield DONE

    played = play(Scene(harness=Faulty(stubborn), limits=replace(DEFAULT_LIMITS, idle_ms=1_000, max_attempts=1)))
    assert (played.code, played.result.messages, played.abandoned) == ("idle_timeout", (), 0)


def test_a_retry_after_is_honoured() -> None:
    async def limited_once(request: HarnessRequest) -> Events:
        if request.attempt == 1:
            yield Failed(code=ErrorCode.RATE_LIMITED, detail="429", retry_after_ms=30_000)
        else:
            yield SAID
            yield DONE

    played = play(Scene(harness=Faulty(limited_once)))
    assert played.result.status == "completed"
    assert 30.0 <= played.ended <= 32.0
    retrying = next(event for event in played.events if isinstance(event, RunRetrying))
    assert retrying.error is not None
    assert (retrying.error.code, retrying.error.retriable) == ("rate_limited", True)


def test_cost_adds_up_over_attempts_or_is_not_told() -> None:
    usage = Usage(provider="p", model="m", input_tokens=1, output_tokens=1)
    billed = SAID.model_copy(update={"usage": usage})

    def harness(first: Cost | None) -> Faulty:
        async def bills(request: HarnessRequest) -> Events:
            yield billed
            if request.attempt == 1:
                yield Failed(code=ErrorCode.PROVIDER_ERROR, detail="500", cost=first)
            else:
                yield Finished(finish_reason="stop", cost=Cost(amount="0.25", source="provider"))

        return Faulty(bills)

    known = play(Scene(harness=harness(Cost(amount="0.1", source="provider")))).result
    assert known.cost == Cost(amount="0.35", source="provider")
    assert known.usage[0].input_tokens == 2
    assert play(Scene(harness=harness(None))).result.cost is None


def test_usage_that_only_the_turn_tells_is_in_the_result() -> None:
    usage = Usage(provider="p", model="m", input_tokens=7, output_tokens=1)

    async def tells_late(_: HarnessRequest) -> Events:
        yield SAID
        yield TurnEnded(turn=1, usage=usage)
        yield DONE

    assert play(Scene(harness=Faulty(tells_late))).result.usage == (usage,)
