"""The lines of one run, as the harness takes them: what waits until the sidecar has lived on after `done`."""

import asyncio

import pytest

from agentstream.consumers.harness.pi_protocol import DoneLine, EventLine, RunOutput, ToolCallLine
from agentstream.consumers.harness.port import HarnessEvent
from agentstream.consumers.harness.sidecar_channel import ACK_LINES, Channel, Lost
from agentstream.schemas.events import MessageEnded, PartDelta, PartEnded, ToolEnded, TurnEnded, TurnStarted
from agentstream.schemas.messages import TextPart
from tests.unit.test_sidecar_lines import rounds

TEXT = PartDelta(message_id="m1", part_index=0, part_type="text", delta="ok")
PART_ENDED = PartEnded(message_id="m1", part_index=0, part_type="text", part=TextPart(content="ok"))
ENDS: tuple[HarnessEvent, ...] = (PART_ENDED, MessageEnded(message_id="m1"), TurnEnded())


async def channel_of(*events: HarnessEvent) -> Channel:
    """One to which these came and `done`, all at once."""
    channel = Channel("run", lambda run, n: None, asyncio.get_running_loop())
    for n, event in enumerate(events, 1):
        assert channel.put(EventLine(run="run", n=n, event=event), 1)
    assert channel.finish(DoneLine(run="run", n=len(events) + 1, status="completed"))
    return channel


def taken(channel: Channel) -> list[str]:
    """What can be taken now: the types of the lines, of events theirs."""
    found = list[str]()
    while isinstance(line := channel.take(), RunOutput):
        found.append(line.event.type if isinstance(line, EventLine) else line.type)
    return [*found, "lost"] if line else found


async def test_text_that_came_with_the_end_is_handed_out_at_once_and_what_shows_nothing_new_with_the_end() -> None:
    channel = await channel_of(TurnStarted(), TEXT, *ENDS)
    assert taken(channel) == ["turn.started", "part.delta"]
    channel.confirm()
    assert taken(channel) == ["part.ended", "message.ended", "turn.ended", "done"]


async def test_only_what_comes_right_before_the_end_waits_with_it() -> None:
    tool_ended = ToolEnded(tool_call_id="c", tool_name="bash", duration_ms=1)
    channel = await channel_of(PART_ENDED, tool_ended, TurnEnded())
    assert taken(channel) == ["part.ended", "tool.ended"]


async def test_a_call_of_a_tool_never_waits_for_the_end() -> None:
    channel = Channel("run", lambda run, n: None, asyncio.get_running_loop())
    channel.put(ToolCallLine(run="run", n=1, tool_call_id="c", tool_name="t"), 1)
    channel.finish(DoneLine(run="run", n=2, status="completed"))
    assert taken(channel) == ["tool_call"]


@pytest.mark.parametrize(
    ("return_code", "rest"),
    [(0, ["turn.ended", "done", "lost"]), (3, ["turn.ended", "lost"]), (-9, ["turn.ended", "lost"])],
)
async def test_a_process_that_ends_after_done_is_believed_if_it_ended_well(return_code: int, rest: list[str]) -> None:
    channel = await channel_of(TEXT, TurnEnded())
    lost = Lost(return_code=return_code, alone=True)
    channel.lose(lost)
    assert taken(channel) == ["part.delta", *rest]
    channel.confirm()  # those who wait for a ping are told when none can be answered any more
    assert (taken(channel), channel.take()) == (["lost"], lost)


async def test_who_waits_is_woken_by_what_can_be_taken_and_by_nothing_else() -> None:
    channel = Channel("run", lambda run, n: None, asyncio.get_running_loop())
    waiting = asyncio.create_task(channel.arrival())
    await rounds()
    channel.put(EventLine(run="run", n=1, event=TurnEnded()), 1)
    channel.finish(DoneLine(run="run", n=2, status="completed"))
    await rounds()
    assert not waiting.done()
    channel.confirm()
    await waiting
    assert taken(channel) == ["turn.ended", "done"]


async def test_lines_are_acknowledged_as_they_are_taken_and_a_missing_one_is_noticed() -> None:
    acknowledged = list[int]()
    channel = Channel("run", lambda run, n: acknowledged.append(n), asyncio.get_running_loop())
    for n in range(1, ACK_LINES + 2):
        assert channel.put(EventLine(run="run", n=n, event=TurnStarted()), 1)
    assert acknowledged == []
    taken(channel)
    assert acknowledged == [ACK_LINES]
    assert not channel.put(EventLine(run="run", n=ACK_LINES + 3, event=TurnStarted()), 1)
    assert not channel.finish(DoneLine(run="run", n=ACK_LINES + 5, status="completed"))
