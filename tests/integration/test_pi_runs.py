"""The real Pi in its real sidecar, against the offline model: what a run says, sends and costs."""

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from agentstream.consumers.harness.pi import PiHarness
from agentstream.consumers.harness.pi_tools import PythonTool, ToolFailed
from agentstream.consumers.tracing.ids import span_id_of
from agentstream.infra.offline_model import OfflineModel, closed_port
from agentstream.schemas.errors import ErrorCode
from agentstream.schemas.events import (
    MessageEnded,
    PartDelta,
    PartEnded,
    ToolEnded,
    ToolProgressed,
    ToolStarted,
    TurnEnded,
    TurnStarted,
)
from agentstream.schemas.messages import (
    BlobPart,
    Message,
    ReasoningPart,
    ToolCallPart,
    ToolCallResponsePart,
    Usage,
)
from agentstream.schemas.trace import TraceContext
from tests.integration.pi_fixtures import (
    ALL_TOOLS,
    KEY,
    credentials,
    perform,
    pi_harness,
    request,
    settings,
    user,
)


@pytest_asyncio.fixture(loop_scope="module")
async def model() -> AsyncIterator[OfflineModel]:
    async with OfflineModel() as opened:
        yield opened


pytestmark = pytest.mark.asyncio(loop_scope="module")


async def _count_letters(arguments: object) -> str:
    assert isinstance(arguments, dict)
    if arguments["word"] == "bad":
        raise ToolFailed("I do not count that word")
    return str(len(str(arguments["word"])))


COUNTER = PythonTool(
    name="count_letters",
    description="Count the letters of a word",
    parameters={"type": "object", "properties": {"word": {"type": "string"}}, "required": ["word"]},
    call=_count_letters,
)


@pytest.fixture(scope="module")
def temporary(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("pi")


# One sidecar for the whole file, as a worker has one for all its runs.
@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def harness(temporary: Path) -> AsyncIterator[PiHarness]:
    async with pi_harness(settings(temporary), tools=(COUNTER,)) as opened:
        yield opened


async def test_an_answer_is_streamed_word_by_word_and_ends_complete(harness: PiHarness, model: OfflineModel) -> None:
    outcome = await perform(harness, request("[[say: one two three]]", credentials=credentials(model)))
    assert outcome.finished.finish_reason == "stop"
    deltas = [event.delta for event in outcome.events if isinstance(event, PartDelta)]
    assert deltas == ["one ", "two ", "three"]
    assert outcome.text == "one two three"
    types = [event.type for event in outcome.events if event.type != "part.delta"]
    expected = ["turn.started", "message.started", "part.started", "part.ended", "message.ended", "turn.ended"]
    assert types == expected
    assert {event.turn for event in outcome.events} == {1}


async def test_tools_run_in_a_throwaway_directory_that_is_gone_afterwards(
    harness: PiHarness, model: OfflineModel, temporary: Path
) -> None:
    script = (
        '[[tool:write {"path": "notes/a.txt", "content": "alpha\\nbeta\\n"}]]'
        '[[tool:bash {"command": "cat notes/a.txt; pwd; echo $HOME"}]]'
        '[[tool:read {"path": "notes/a.txt"}]]'
        '[[tool:edit {"path": "notes/a.txt", "edits": [{"oldText": "beta", "newText": "gamma"}]}]]'
        '[[tool:grep {"pattern": "ga+mma"}]]'
        '[[tool:find {"pattern": "*.txt"}]]'
        '[[tool:ls {"path": "~/notes"}]][[say: done]]'
    )
    outcome = await perform(harness, request(script, credentials=credentials(model), tools=ALL_TOOLS))
    assert outcome.text == "done"
    ended = {event.tool_name: event for event in outcome.events if isinstance(event, ToolEnded)}
    assert [event.is_error for event in ended.values()] == [False] * 7, ended
    shell = str(ended["bash"].content).split()
    assert shell[:2] == ["alpha", "beta"]
    assert shell[2] == shell[3]
    directory = Path(shell[2])
    assert directory.is_relative_to(temporary)
    assert not directory.exists()
    assert ended["read"].content == "alpha\nbeta\n"
    assert ended["grep"].content == "notes/a.txt:2:gamma"
    assert ended["find"].content == "notes/a.txt"
    assert ended["ls"].content == "a.txt"
    assert [event.turn for event in outcome.events if isinstance(event, TurnStarted)] == list(range(1, 9))
    assert [m.role for m in outcome.messages] == ["assistant", "tool"] * 7 + ["assistant"]


async def test_every_event_of_a_tool_call_carries_the_whole_value(harness: PiHarness, model: OfflineModel) -> None:
    script = '[[think: hm]][[tool:bash {"command": "echo hi"}]][[say: ok]]'
    outcome = await perform(harness, request(script, credentials=credentials(model), tools=("bash",)))
    parts = [event.part for event in outcome.events if isinstance(event, PartEnded)]
    assert parts[0] == ReasoningPart(content="hm")
    assert isinstance(parts[1], ToolCallPart)
    assert parts[1].arguments == {"command": "echo hi"}
    started = next(event for event in outcome.events if isinstance(event, ToolStarted))
    assert (started.tool_call_id, started.tool_name) == (parts[1].id, "bash")
    answer = outcome.messages[1].parts[0]
    assert answer == ToolCallResponsePart(id=parts[1].id, response="hi\n", is_error=False)


async def test_a_running_tool_shows_what_is_new(harness: PiHarness, model: OfflineModel) -> None:
    script = '[[tool:bash {"command": "for i in 1 2 3 4; do echo line $i; sleep 0.2; done"}]][[say: ok]]'
    outcome = await perform(harness, request(script, credentials=credentials(model), tools=("bash",)))
    shown = [event.content for event in outcome.events if isinstance(event, ToolProgressed)]
    assert len(shown) >= 2
    assert "".join(shown) == "line 1\nline 2\nline 3\nline 4\n"


async def test_a_failing_tool_is_read_by_the_model_and_not_the_end_of_the_run(
    harness: PiHarness, model: OfflineModel
) -> None:
    script = '[[tool:bash {"command": "echo no; exit 3"}]][[tool:nothing {"a": 1}]][[tool:read {"a": 1}]][[say: ok]]'
    outcome = await perform(harness, request(script, credentials=credentials(model), tools=("bash", "read")))
    assert outcome.text == "ok"
    ended = [event for event in outcome.events if isinstance(event, ToolEnded)]
    assert [event.is_error for event in ended] == [True, True, True]
    assert "exited with code 3" in str(ended[0].content)
    assert "exited with code 3" in model.calls[1].conversation.tool_outputs[0]


async def test_a_tool_of_ours_is_answered_in_python(harness: PiHarness, model: OfflineModel) -> None:
    script = '[[tool:count_letters {"word": "agent"}]][[and:count_letters {"word": "bad"}]][[say: ok]]'
    outcome = await perform(harness, request(script, credentials=credentials(model), tools=("count_letters",)))
    ended = [(event.content, event.is_error) for event in outcome.events if isinstance(event, ToolEnded)]
    assert sorted(ended) == [("5", False), ("I do not count that word", True)]
    assert model.calls[0].conversation.tools == {"count_letters"}


async def test_only_allowed_tools_are_offered_and_run(harness: PiHarness, model: OfflineModel) -> None:
    script = '[[tool:bash {"command": "echo hi"}]][[say: ok]]'
    outcome = await perform(harness, request(script, credentials=credentials(model), tools=("read",)))
    assert model.calls[0].conversation.tools == {"read"}
    assert [e.is_error for e in outcome.events if isinstance(e, ToolEnded)] == [True]
    none = await perform(harness, request("[[say: ok]]", credentials=credentials(model)))
    assert none.text == "ok"
    assert model.calls[-1].conversation.tools == frozenset()


async def test_a_tool_that_pi_does_not_have_fails_the_run(harness: PiHarness, model: OfflineModel) -> None:
    outcome = await perform(harness, request("hi", credentials=credentials(model), tools=("teleport",)))
    assert outcome.failed.code is ErrorCode.TOOL_NOT_ALLOWED
    assert not model.calls


async def test_the_history_reaches_the_model_in_order_with_its_tool_calls(
    harness: PiHarness, model: OfflineModel
) -> None:
    history = (
        user("My name is Ada"),
        Message(role="assistant", parts=(ReasoningPart(content="secret thought"), ToolCallPart(id="c1", name="look"))),
        Message(role="tool", parts=(ToolCallResponsePart(id="c1", response={"found": 1}),)),
        Message.of_text("assistant", "Nice to meet you."),
        user("What is my name?"),
    )
    outcome = await perform(harness, request(*history, credentials=credentials(model)))
    assert "Your name is Ada." in outcome.text
    turns = model.calls[0].conversation.turns
    assert [turn.role for turn in turns] == ["user", "assistant", "tool", "assistant", "user"]
    assert turns[2].text == '{"found":1}'
    assert "secret thought" not in json.dumps(model.calls[0].body)


async def test_a_turn_that_ends_with_a_tool_answer_goes_on_with_the_whole_system_prompt(
    harness: PiHarness, model: OfflineModel
) -> None:
    # Pi's continue() sends no system prompt: an agent resumed after a client-side tool had forgotten who it was.
    history = (
        user("Look it up"),
        Message(role="assistant", parts=(ToolCallPart(id="c1", name="look", arguments={}),)),
        Message(role="tool", parts=(ToolCallResponsePart(id="c1", response="42"),)),
    )
    wanted = request(*history, credentials=credentials(model), agents_md="Your name is Bob.", tools=("read",))
    outcome = await perform(harness, wanted)
    assert "42" in outcome.text
    call = model.calls[0].conversation
    assert "Your name is Bob." in call.system
    assert [turn.role for turn in call.turns] == ["user", "assistant", "tool"]
    assert call.tools == {"read"}


async def test_the_instructions_lead_every_call_and_no_path_of_ours_is_in_them(
    harness: PiHarness, model: OfflineModel
) -> None:
    script = '[[tool:bash {"command": "true"}]][[say: ok]]'
    agents_md = "Your name is Bob. <b>&amp;</b>"
    await perform(harness, request(script, credentials=credentials(model), agents_md=agents_md, tools=("bash",)))
    first, second = model.calls
    assert agents_md in first.conversation.system
    assert first.conversation.system == second.conversation.system
    assert "node_modules" not in first.conversation.system
    messages = first.body["messages"]
    assert isinstance(messages, list)
    assert isinstance(messages[0], dict)
    assert messages[0]["role"] == "system"


async def test_a_prompt_that_looks_like_a_command_or_a_template_is_sent_as_it_is(
    harness: PiHarness, model: OfflineModel
) -> None:
    for text in ("/help me", "/skill:x $1 $@", "!ls", "@README.md"):
        await perform(harness, request(text, credentials=credentials(model)))
        assert model.calls[-1].conversation.prompt == text


async def test_an_image_reaches_the_model_and_what_pi_cannot_send_is_refused(
    harness: PiHarness, model: OfflineModel
) -> None:
    dot = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
    image = BlobPart(modality="image", mime_type="image/png", content=dot)
    picture = Message(role="user", parts=(*user("look").parts, image))
    await perform(harness, request(picture, credentials=credentials(model)))
    assert dot in json.dumps(model.calls[-1].body["messages"])
    sound = Message(role="user", parts=(BlobPart(modality="audio", mime_type="audio/wav", content="AAAA"),))
    outcome = await perform(harness, request(sound, credentials=credentials(model)))
    assert outcome.failed.code is ErrorCode.UNSUPPORTED


async def test_each_model_call_has_the_runs_trace_and_a_span_of_its_own(
    harness: PiHarness, model: OfflineModel
) -> None:
    trace = TraceContext(trace_id="a" * 32, span_id="b" * 16, tracestate="vendor=1", baggage="tenant=7")
    script = '[[tool:bash {"command": "true"}]][[say: ok]]'
    asked = request(script, credentials=credentials(model), tools=("bash",), trace=trace)
    await perform(harness, asked)
    parents = [call.headers["traceparent"].split("-") for call in model.calls]
    assert [(p[0], p[1], p[3]) for p in parents] == [("00", "a" * 32, "01")] * 2
    assert [p[2] for p in parents] == [span_id_of(asked.attempt_id, "chat", number) for number in (1, 2)]
    assert {call.headers["tracestate"] for call in model.calls} == {"vendor=1"}
    assert {call.headers["baggage"] for call in model.calls} == {"tenant=7"}


async def test_cached_tokens_count_as_input_and_cost_is_given_only_where_prices_are_known(
    harness: PiHarness, model: OfflineModel
) -> None:
    script = "[[usage: prompt=1000 cached=200 completion=50]][[say: ok]]"
    priced = await perform(harness, request(script, credentials=credentials(model, prices=("2", "10"))))
    ended = next(event for event in priced.events if isinstance(event, MessageEnded))
    expected = Usage(
        provider="offline",
        model="demo",
        input_tokens=1000,
        output_tokens=50,
        cached_input_tokens=200,
        reasoning_tokens=0,
    )
    assert ended.usage == expected
    assert next(e for e in priced.events if isinstance(e, TurnEnded)).usage == ended.usage
    assert priced.finished.cost is not None
    assert (priced.finished.cost.amount, priced.finished.cost.source) == ("0.0025", "settings")
    unpriced = await perform(harness, request(script, credentials=credentials(model)))
    assert unpriced.finished.cost is None


async def test_an_output_limit_is_told_apart_from_an_answer(harness: PiHarness, model: OfflineModel) -> None:
    outcome = await perform(harness, request("[[say: half an]][[length]]", credentials=credentials(model)))
    assert outcome.finished.finish_reason == "length"


async def test_a_looping_model_is_stopped_after_exactly_its_turns(harness: PiHarness, model: OfflineModel) -> None:
    wanted = request('[[loop:bash {"command": "true"}]]', credentials=credentials(model), tools=("bash",), max_turns=3)
    outcome = await perform(harness, wanted)
    assert outcome.failed.code is ErrorCode.MAX_TURNS
    assert len(model.calls) == 3
    exact = request(
        '[[tool:bash {"command": "true"}]][[say: ok]]', credentials=credentials(model), tools=("bash",), max_turns=2
    )
    assert (await perform(harness, exact)).text == "ok"


@pytest.mark.parametrize(
    ("script", "code", "retriable", "retry_after_ms"),
    [
        ("[[fail:401]]", ErrorCode.PROVIDER_AUTH, False, None),
        ("[[fail:403]]", ErrorCode.PROVIDER_AUTH, False, None),
        ("[[fail:404]]", ErrorCode.MODEL_UNAVAILABLE, False, None),
        ("[[fail:400]]", ErrorCode.PROVIDER_ERROR, False, None),
        ("[[fail:400 message=maximum_context_length_is_10_tokens]]", ErrorCode.PROVIDER_ERROR, False, None),
        ("[[fail:429 retry_after=2]]", ErrorCode.RATE_LIMITED, True, 2_000),
        ("[[fail:429 message=insufficient_quota]]", ErrorCode.RATE_LIMITED, False, None),
        ("[[fail:500]]", ErrorCode.PROVIDER_ERROR, True, None),
        ("[[fail:503 retry_after=0.5]]", ErrorCode.PROVIDER_ERROR, True, 500),
        ("[[fail:cut]][[say: one two three four]]", ErrorCode.PROVIDER_ERROR, True, None),
        ("[[fail:refuse]]", ErrorCode.PROVIDER_ERROR, True, None),
    ],
)
async def test_a_providers_failure_has_its_code_and_is_called_once(
    harness: PiHarness,
    model: OfflineModel,
    script: str,
    code: ErrorCode,
    retriable: bool,
    retry_after_ms: int | None,
) -> None:
    outcome = await perform(harness, request(script, credentials=credentials(model)))
    failed = outcome.failed
    assert (failed.code, failed.retriable, failed.retry_after_ms) == (code, retriable, retry_after_ms)
    assert len(model.calls) == 1
    assert "\n" not in failed.detail


async def test_an_endpoint_that_refuses_connections_is_worth_another_try(harness: PiHarness) -> None:
    nobody = credentials(f"http://127.0.0.1:{closed_port()}/v1")
    outcome = await perform(harness, request("hi", credentials=nobody))
    assert outcome.failed.code is ErrorCode.PROVIDER_ERROR
    assert outcome.failed.retriable
    assert "ECONNREFUSED" in outcome.failed.detail


async def test_what_was_said_before_a_cut_is_complete_in_the_events(harness: PiHarness, model: OfflineModel) -> None:
    outcome = await perform(harness, request("[[fail:cut]][[say: one two three four]]", credentials=credentials(model)))
    ended = next(event for event in outcome.events if isinstance(event, MessageEnded))
    assert ended.finish_reason == "error"
    assert outcome.deltas == outcome.text != ""


@pytest.mark.parametrize(
    ("name", "with_credentials", "code"),
    [
        ("nobody/knows-this", False, ErrorCode.MODEL_UNAVAILABLE),
        ("openai/gpt-5", False, ErrorCode.PROVIDER_AUTH),
        (None, True, ErrorCode.MODEL_UNAVAILABLE),
    ],
)
async def test_a_model_that_cannot_be_called_fails_at_once(
    harness: PiHarness, model: OfflineModel, name: str | None, with_credentials: bool, code: ErrorCode
) -> None:
    own = credentials(model) if with_credentials else None
    outcome = await perform(harness, request("hi", credentials=own, model=name))
    assert outcome.failed.code is code
    assert not outcome.failed.retriable


async def test_a_model_of_pis_catalogue_runs_at_an_endpoint_of_ours(harness: PiHarness, model: OfflineModel) -> None:
    outcome = await perform(harness, request("[[say: ok]]", credentials=credentials(model), model="openai/gpt-4o-mini"))
    assert outcome.text == "ok"
    assert model.calls[0].conversation.model == "gpt-4o-mini"


async def test_a_model_that_says_nothing_is_a_failure(harness: PiHarness, model: OfflineModel) -> None:
    outcome = await perform(harness, request("[[say: ]]", credentials=credentials(model)))
    assert outcome.failed.code is ErrorCode.NO_OUTPUT


async def test_forty_runs_at_once_keep_their_keys_answers_and_traces_apart(
    harness: PiHarness, model: OfflineModel
) -> None:
    async def one(number: int) -> None:
        trace = TraceContext(trace_id=f"{number + 1:032x}", span_id="b" * 16)
        command = f"echo {number} > mine; sleep 0.0{number % 7}; cat mine"
        script = f'[[tool:bash {{"command": "{command}"}}]][[say: I am {number}]]'
        own = credentials(model, key=f"sk-key-number-{number:04}")
        outcome = await perform(harness, request(script, credentials=own, tools=("bash",), trace=trace))
        assert outcome.text == f"I am {number}"
        assert next(e for e in outcome.events if isinstance(e, ToolEnded)).content == f"{number}\n"

    await asyncio.gather(*(one(number) for number in range(40)))
    for call in model.calls:
        number = int(call.headers["traceparent"].split("-")[1], 16) - 1
        assert call.api_key == f"sk-key-number-{number:04}"
        assert f"I am {number}]]" in call.conversation.prompt


@pytest.mark.both_loops
async def test_an_answer_of_two_mebibytes_arrives_whole(harness: PiHarness, model: OfflineModel) -> None:
    outcome = await perform(harness, request("[[big: 2097152]]", credentials=credentials(model)))
    assert len(outcome.text) == len(outcome.deltas) == 2_097_152


async def test_an_answer_longer_than_a_line_fails_and_costs_no_other_run_anything(
    harness: PiHarness, model: OfflineModel
) -> None:
    huge, other = await asyncio.gather(
        perform(harness, request("[[big: 17000000]]", credentials=credentials(model))),
        perform(harness, request("[[pace: 20]][[say: I am still here to the end]]", credentials=credentials(model))),
    )
    assert huge.failed.code is ErrorCode.OUTPUT_TOO_LARGE
    assert other.text == "I am still here to the end"


async def test_a_request_longer_than_a_line_is_refused_before_it_is_sent(
    harness: PiHarness, model: OfflineModel
) -> None:
    outcome = await perform(harness, request("x" * 17_000_000, credentials=credentials(model)))
    assert outcome.failed.code is ErrorCode.PAYLOAD_TOO_LARGE
    assert (await perform(harness, request("[[say: ok]]", credentials=credentials(model)))).text == "ok"


async def test_a_split_emoji_and_a_lone_surrogate_do_not_break_the_pipe(
    harness: PiHarness, model: OfflineModel
) -> None:
    script = '[[tool:bash {"command": "printf \'\\\\360\\\\237\\\\230\\\\200 \\\\355\\\\240\\\\275\'"}]][[say: 😀😀]]'
    outcome = await perform(harness, request(script, credentials=credentials(model), tools=("bash",)))
    assert outcome.text == outcome.deltas == "😀😀"
    for event in outcome.events:
        event.to_bytes()


async def test_long_shell_output_is_cut_and_kept_where_the_run_can_read_it(
    harness: PiHarness, model: OfflineModel
) -> None:
    script = (
        '[[tool:bash {"command": "seq 1 20000"}]]'
        '[[tool:bash {"command": "ls pi-bash-* | wc -l; tail -1 pi-bash-*"}]][[say: ok]]'
    )
    outcome = await perform(harness, request(script, credentials=credentials(model), tools=("bash",)))
    first, second = (str(event.content) for event in outcome.events if isinstance(event, ToolEnded))
    assert "Full output:" in first
    assert second.split() == ["1", "20000"]


async def test_the_secret_is_in_no_event_and_no_failure(harness: PiHarness, model: OfflineModel) -> None:
    script = '[[tool:bash {"command": "env; cat /proc/self/cmdline"}]][[say: ok]]'
    outcome = await perform(harness, request(script, credentials=credentials(model), tools=("bash",)))
    refused = await perform(harness, request(f"[[fail:401 message=bad_key_{KEY}]]", credentials=credentials(model)))
    said = "".join(event.model_dump_json() for event in outcome.events) + refused.failed.detail
    assert KEY not in said
    assert "[redacted]" in refused.failed.detail
