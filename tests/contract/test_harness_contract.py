"""What the port promises of every harness, sentence by sentence."""

import asyncio
from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass, field, replace

import pytest

from agentstream.consumers.harness.port import Failed, Finished, HarnessEvent, HarnessRequest, Terminal, Waiting
from agentstream.schemas.errors import ErrorCode
from agentstream.schemas.events import (
    UNNUMBERED,
    MessageEnded,
    MessageStarted,
    PartDelta,
    PartEnded,
    PartStarted,
    ToolEnded,
    ToolStarted,
    TurnEnded,
    TurnStarted,
)
from agentstream.schemas.messages import (
    Message,
    Part,
    ReasoningPart,
    TextPart,
    ToolCallPart,
    ToolCallResponsePart,
)
from agentstream.schemas.requests import InvokeRequest
from tests.contract.cases import ENDING, HANGING, LARGE_BYTES, TEXT, Scene, Stage, processes_marked

pytestmark = pytest.mark.asyncio(loop_scope="module")

CANCEL_SECONDS = 2.0
"""The port's promise: not a measure of speed, but the bound after which a worker leaves a run behind."""


@dataclass
class Heard:
    """All that a run yielded."""

    events: list[HarnessEvent] = field(default_factory=list)
    terminals: list[Terminal] = field(default_factory=list)

    @property
    def messages(self) -> list[Message]:
        return [event.message for event in self.events if isinstance(event, MessageEnded) and event.message]

    @property
    def terminal(self) -> Terminal:
        (terminal,) = self.terminals
        return terminal


async def hear(stage: Stage, request: HarnessRequest, into: Heard | None = None) -> Heard:
    """Run to the end."""
    heard = into or Heard()
    async for event in stage.harness.run(request):
        assert not heard.terminals, f"{event} came after {heard.terminals}"
        if isinstance(event, Finished | Failed):
            heard.terminals.append(event)
        elif not isinstance(event, Waiting):
            heard.events.append(event)
    return heard


def said(parts: Sequence[Part]) -> str:
    return "".join(part.content for part in parts if isinstance(part, TextPart))


@pytest.mark.parametrize("scene", ENDING)
async def test_a_run_ends_with_exactly_one_terminal_event_and_never_raises(stage: Stage, scene: Scene) -> None:
    heard = await hear(stage, stage.request(scene))
    assert len(heard.terminals) == 1


@pytest.mark.parametrize("scene", ENDING)
async def test_events_are_not_numbered_by_the_harness(stage: Stage, scene: Scene) -> None:
    heard = await hear(stage, stage.request(scene))
    assert {event.seq for event in heard.events} <= {UNNUMBERED}


@pytest.mark.parametrize("scene", [Scene.ANSWER, Scene.TOOLS, Scene.LARGE])
async def test_the_answer_is_the_last_message_and_comes_complete(stage: Stage, scene: Scene) -> None:
    heard = await hear(stage, stage.request(scene))
    assert isinstance(heard.terminal, Finished)
    assert heard.terminal.finish_reason == "stop"
    text = heard.messages[-1].text
    assert len(text) == LARGE_BYTES if scene is Scene.LARGE else text == TEXT


@pytest.mark.parametrize("scene", [Scene.ANSWER, Scene.TOOLS, Scene.TOOL_FAILS, Scene.LARGE])
async def test_deltas_joined_are_their_part_and_parts_joined_are_their_message(stage: Stage, scene: Scene) -> None:
    heard = await hear(stage, stage.request(scene))
    deltas: dict[tuple[str, int], str] = {}
    parts: dict[str, list[Part]] = {}
    for event in heard.events:
        if isinstance(event, PartDelta):
            key = (event.message_id, event.part_index)
            deltas[key] = deltas.get(key, "") + event.delta
        elif isinstance(event, PartEnded) and event.part is not None:
            assert event.part_index == len(parts.setdefault(event.message_id, []))
            parts[event.message_id].append(event.part)
            if isinstance(event.part, TextPart | ReasoningPart):
                assert deltas[event.message_id, event.part_index] == event.part.content
        elif isinstance(event, MessageEnded) and event.message is not None and event.message.role == "assistant":
            assert tuple(parts[event.message_id]) == event.message.parts


@pytest.mark.parametrize("scene", [Scene.ANSWER, Scene.TOOLS, Scene.TOOL_FAILS])
async def test_whatever_starts_in_a_completed_run_ends_inside_what_holds_it(stage: Stage, scene: Scene) -> None:
    heard = await hear(stage, stage.request(scene))
    open_things: list[tuple[str, object]] = []
    for event in heard.events:
        match event:
            case TurnStarted():
                assert not open_things
                open_things.append(("turn", event.turn))
            case MessageStarted():
                open_things.append(("message", event.message_id))
            case PartStarted():
                assert ("message", event.message_id) in open_things
                open_things.append(("part", (event.message_id, event.part_index)))
            case ToolStarted():
                open_things.append(("tool", event.tool_call_id))
            case PartEnded():
                open_things.remove(("part", (event.message_id, event.part_index)))
            case ToolEnded():
                open_things.remove(("tool", event.tool_call_id))
            case MessageEnded():
                open_things.remove(("message", event.message_id))
            case TurnEnded():
                assert open_things == [("turn", event.turn)]
                open_things.clear()
            case _:
                pass
    assert not open_things


@pytest.mark.parametrize("scene", ENDING)
async def test_turns_count_from_one_and_their_events_carry_them(stage: Stage, scene: Scene) -> None:
    heard = await hear(stage, stage.request(scene))
    current = 0
    for event in heard.events:
        if isinstance(event, TurnStarted):
            assert event.turn == current + 1
            current = event.turn
        assert event.turn == current, event


@pytest.mark.parametrize("scene", [Scene.TOOLS, Scene.TOOL_FAILS])
async def test_each_tool_call_is_shown_and_answered_in_the_messages(stage: Stage, scene: Scene) -> None:
    heard = await hear(stage, stage.request(scene))
    parts = [part for message in heard.messages for part in message.parts]
    calls = [part.id for part in parts if isinstance(part, ToolCallPart)]
    answers = [(part.id, part.is_error) for part in parts if isinstance(part, ToolCallResponsePart)]
    started = [event.tool_call_id for event in heard.events if isinstance(event, ToolStarted)]
    ended = [(event.tool_call_id, event.is_error) for event in heard.events if isinstance(event, ToolEnded)]
    assert calls == started
    assert len(calls) == len(set(calls)) == (2 if scene is Scene.TOOLS else 1)
    assert answers == ended == [(call, scene is Scene.TOOL_FAILS) for call in calls]


async def test_what_the_agent_added_can_be_sent_as_history_with_the_next_turn(stage: Stage) -> None:
    request = stage.request(Scene.TOOLS)
    heard = await hear(stage, request)
    messages = (*request.messages, *heard.messages, *stage.request(Scene.ANSWER).messages)
    InvokeRequest(messages=messages)
    again = await hear(stage, replace(stage.request(Scene.ANSWER), messages=messages))
    assert again.messages[-1].text == TEXT
    assert len(again.messages) == 1


async def test_usage_is_reported_with_the_message_it_was_spent_on(stage: Stage) -> None:
    heard = await hear(stage, stage.request(Scene.ANSWER))
    (usage,) = [event.usage for event in heard.events if isinstance(event, MessageEnded)]
    assert usage is not None
    assert (usage.input_tokens, usage.output_tokens) == (5, 3)


@pytest.mark.parametrize(
    ("scene", "code", "retriable"),
    [(Scene.PROVIDER_DOWN, ErrorCode.PROVIDER_ERROR, True), (Scene.REFUSED, ErrorCode.PROVIDER_AUTH, False)],
)
async def test_a_failing_provider_is_a_failure_with_its_code_in_one_line(
    stage: Stage, scene: Scene, code: ErrorCode, retriable: bool
) -> None:
    request = stage.request(scene)
    failed = (await hear(stage, request)).terminal
    assert isinstance(failed, Failed)
    assert failed.code is code
    assert failed.retriable in (None, retriable)
    assert "\n" not in failed.detail
    assert request.credentials is None or request.credentials.api_key not in failed.detail


async def test_a_looping_agent_is_stopped_after_its_turns(stage: Stage) -> None:
    heard = await hear(stage, stage.request(Scene.LOOP))
    assert isinstance(heard.terminal, Failed)
    assert heard.terminal.code is ErrorCode.MAX_TURNS
    assert sum(isinstance(event, TurnStarted) for event in heard.events) == 2


async def test_a_tool_that_fails_does_not_end_the_run(stage: Stage) -> None:
    heard = await hear(stage, stage.request(Scene.TOOL_FAILS))
    assert isinstance(heard.terminal, Finished)
    assert heard.messages[-1].text == TEXT


def has_come_to_its_hang(scene: Scene, heard: Heard) -> bool:
    match scene:
        case Scene.HANG_MID_TEXT:
            return any(isinstance(event, PartDelta) for event in heard.events)
        case Scene.HANG_IN_TOOL:
            return any(isinstance(event, ToolStarted) for event in heard.events)
        case _:
            return True


async def until_it_hangs(task: asyncio.Task[Heard], scene: Scene, heard: Heard) -> None:
    async with asyncio.timeout(30):
        while not has_come_to_its_hang(scene, heard):  # a harness has no hook for this
            assert not task.done()
            await asyncio.sleep(0.01)
    # Whatever is on its way may start now: a cancellation that meets a process being born must end it, too.
    await asyncio.sleep(0)


@pytest.mark.parametrize("scene", HANGING)
async def test_cancelled_it_ends_within_two_seconds_and_leaves_no_process(stage: Stage, scene: Scene) -> None:
    request, heard = stage.request(scene), Heard()
    task = asyncio.create_task(hear(stage, request, heard))
    await until_it_hangs(task, scene, heard)
    task.cancel()
    await asyncio.wait([task], timeout=CANCEL_SECONDS)
    assert task.cancelled()
    assert processes_marked(request.attempt_id) == []
    assert not heard.terminals


@pytest.mark.parametrize("scene", [Scene.HANG_MID_TEXT, Scene.HANG_IN_TOOL])
async def test_closed_it_ends_within_two_seconds_and_leaves_no_process(stage: Stage, scene: Scene) -> None:
    request = stage.request(scene)
    events = stage.harness.run(request)
    assert isinstance(events, AsyncGenerator)
    async for event in events:
        if has_come_to_its_hang(scene, Heard(events=[event])):
            break
    async with asyncio.timeout(CANCEL_SECONDS):
        await events.aclose()
    assert processes_marked(request.attempt_id) == []


async def test_a_finished_run_leaves_no_process(stage: Stage) -> None:
    request = stage.request(Scene.TOOLS)
    await hear(stage, request)
    assert processes_marked(request.attempt_id) == []


async def test_after_a_cancelled_run_the_next_one_is_untouched(stage: Stage) -> None:
    task = asyncio.create_task(hear(stage, stage.request(Scene.HANG_BEFORE_ANSWER)))
    await asyncio.sleep(0)
    task.cancel()
    heard, _ = await asyncio.gather(hear(stage, stage.request(Scene.TOOLS)), asyncio.wait([task]))
    assert heard.messages[-1].text == TEXT


async def test_many_runs_at_once_do_not_disturb_each_other(stage: Stage) -> None:
    scenes = [Scene.ANSWER, Scene.TOOLS, Scene.PROVIDER_DOWN, Scene.LARGE, Scene.LOOP] * 4
    alone = {scene: await hear(stage, stage.request(scene)) for scene in set(scenes)}
    together = await asyncio.gather(*(hear(stage, stage.request(scene)) for scene in scenes))
    for scene, heard in zip(scenes, together, strict=True):
        assert type(heard.terminal) is type(alone[scene].terminal)
        assert [(m.role, m.text) for m in heard.messages] == [(m.role, m.text) for m in alone[scene].messages]


async def test_a_reader_that_is_slower_than_the_agent_loses_nothing(stage: Stage) -> None:
    heard = Heard()
    async for event in stage.harness.run(stage.request(Scene.LARGE)):
        for _ in range(20):
            await asyncio.sleep(0)
        if isinstance(event, Finished | Failed):
            heard.terminals.append(event)
        elif not isinstance(event, Waiting):
            heard.events.append(event)
    assert isinstance(heard.terminal, Finished)
    assert sum(len(event.delta) for event in heard.events if isinstance(event, PartDelta)) == LARGE_BYTES
    assert len(said(heard.messages[-1].parts)) == LARGE_BYTES


async def test_no_options_are_fine_and_wrong_ones_are_told_in_one_line(stage: Stage) -> None:
    assert stage.harness.check_options({}) is None
    for options in stage.bad_options:
        told = stage.harness.check_options(options)
        assert told
        assert "\n" not in told


async def test_an_open_harness_is_healthy_and_says_what_it_is(stage: Stage) -> None:
    assert await stage.harness.health() is None
    assert stage.harness.kind == stage.request(Scene.ANSWER).choice.kind
    assert stage.harness.versions
    assert all(isinstance(part, str) for pair in stage.harness.versions.items() for part in pair)
