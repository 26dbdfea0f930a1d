"""What a frozen run's model is answered, and how its conversation is compared with the recorded one."""

import asyncio

import pytest
from pydantic import JsonValue

from agentstream.consumers.agent_config import DEFAULT_LIMITS
from agentstream.consumers.harness.port import Finished, HarnessRequest, Waiting
from agentstream.consumers.harness.scripted import ScriptedHarness
from agentstream.consumers.replay.playing import Playback, Playbacks, ReplayHarness, ReplayTerms, Tape
from agentstream.consumers.replay.playing.playback import Said
from agentstream.schemas.errors import ErrorCode
from agentstream.schemas.messages import Message
from agentstream.schemas.recordings import RecordedRun
from agentstream.schemas.trace import TraceContext
from tests.support.replays import Case, record_scripted, scripted

CALL: tuple[str, JsonValue] = ("read", {"path": "a", "n": 1})
USER = Said(role="user", text="hi")
ASKED = Said(role="assistant", text="", calls=(CALL,))
TOLD = Said(role="tool", text="A")


@pytest.fixture
async def run() -> RecordedRun:
    tool: dict[str, JsonValue] = {"name": "read", "arguments": {"path": "a", "n": 1}, "result": "A"}
    usage: JsonValue = {"provider": "p", "model": "m", "input_tokens": 9, "output_tokens": 1}
    return (await record_scripted(Case(parameters=scripted("done", tool, usage=usage))))[0]


def played(run: RecordedRun) -> Playback:
    return Playback(Tape.of(run), ReplayTerms(mode="frozen"), messages=run.request.messages)


def see(playback: Playback, run: RecordedRun, messages: int) -> None:
    assert run.result is not None
    for message in run.result.messages[:messages]:
        playback.saw(message)


async def test_each_call_gets_the_answer_of_its_place(run: RecordedRun) -> None:
    playback = played(run)
    first = await playback.answer_model([USER])
    see(playback, run, 2)
    second = await playback.answer_model([USER, ASKED, TOLD])
    assert first is not None
    assert second is not None
    assert ([call.name for call in first.calls], first.finish_reason) == (["read"], "tool_call")
    assert (second.text, second.finish_reason) == ("done", "stop")
    assert second.usage is not None
    assert second.usage.input_tokens == 9
    assert playback.verdict is None


@pytest.mark.parametrize(
    ("sent", "what"),
    [
        ([Said(role="user", text="ho"), ASKED, TOLD], "the model is asked something else than the user said"),
        ([USER, ASKED, Said(role="tool", text="B")], "the model is told another history before its 2nd answer"),
        ([USER, ASKED], "the model is told another history before its 2nd answer"),
        (
            [USER, Said(role="assistant", text="", calls=(("read", {"path": "b"}),)), TOLD],
            "the model is told another history before its 2nd answer",
        ),
        ([USER, TOLD, ASKED], "the model is told another history before its 2nd answer"),
    ],
)
async def test_a_conversation_that_went_another_way_is_not_answered(
    run: RecordedRun, sent: list[Said], what: str
) -> None:
    playback = played(run)
    await playback.answer_model([USER])
    see(playback, run, 2)
    assert await playback.answer_model(sent) is None
    assert playback.divergence is not None
    assert playback.divergence.what == what
    assert await playback.answer_model([USER, ASKED, TOLD]) is None, "what left the recording does not come back to it"


async def test_a_call_too_many_is_a_divergence_unless_the_recorded_run_failed_there(run: RecordedRun) -> None:
    playback = played(run)
    see(playback, run, 3)
    for sent in ([USER], [USER, ASKED, TOLD]):
        assert await playback.answer_model(sent) is not None
    assert await playback.answer_model([USER]) is None
    assert playback.divergence is not None
    assert playback.divergence.what == "the model is called a 3rd time, the recording has 2 answers"
    failed = (await record_scripted(Case(parameters=scripted("no", error="provider_auth"))))[0]
    playback = played(failed)
    assert await playback.answer_model([USER]) is None
    assert playback.divergence is None
    assert playback.verdict is not None
    assert (playback.verdict.code, playback.verdict.retriable) == (ErrorCode.PROVIDER_AUTH, False)


async def test_another_attempt_begins_with_the_first_answer(run: RecordedRun) -> None:
    playback = played(run)
    first = await playback.answer_model([USER])
    playback.begin()
    assert await playback.answer_model([USER]) == first


async def test_a_call_that_overtakes_its_events_waits_for_them(run: RecordedRun) -> None:
    playback = played(run)
    await playback.answer_model([USER])
    asking = asyncio.create_task(playback.answer_model([USER, ASKED, Said(role="tool", text="B")]))
    await asyncio.sleep(0)
    assert run.result is not None
    playback.saw(run.result.messages[0])
    changed = run.result.messages[1].model_dump_json().replace('"A"', '"B"')
    playback.saw(Message.model_validate_json(changed))
    assert await asking is None
    assert playback.divergence is not None
    assert playback.divergence.what == "another result of read"


async def test_a_run_whose_playback_is_not_there_yet_waits_for_it_and_plays_nothing(run: RecordedRun) -> None:
    """A killed replay had sent it: it reaches the next worker before the next player asks for it."""
    playbacks = Playbacks()
    async with ScriptedHarness() as inner:
        playing = ReplayHarness(inner, playbacks).run(scripted_request(run))
        assert isinstance(await anext(playing), Waiting)
        assert isinstance(await anext(playing), Waiting)
        with playbacks.playing("another", played(run)):
            assert isinstance(await anext(playing), Waiting)
        with playbacks.playing("r0", played(run)) as playback:
            events = [event async for event in playing]
    assert events[-1] == Finished(finish_reason="stop")
    assert (playback.divergence, playback.from_recording) == (None, 1)


def scripted_request(run: RecordedRun) -> HarnessRequest:
    assert run.request.parameters.harness is not None
    return HarnessRequest(
        run_id=run.run_id,
        session_id=run.session_id,
        attempt=1,
        attempt_id="a",
        messages=run.request.messages,
        model=None,
        agents_md="",
        tools=("read",),
        choice=run.request.parameters.harness,
        thinking="off",
        limits=DEFAULT_LIMITS,
        credentials=None,
        trace=TraceContext.fresh(),
    )
