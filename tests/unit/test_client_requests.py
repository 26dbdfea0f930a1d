import asyncio
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from typing import cast
from uuid import UUID

import pytest
from aiokafka.errors import KafkaConnectionError, MessageSizeTooLargeError, TopicAuthorizationFailedError

from agentstream.consumers.client import (
    AgentClient,
    BrokerUnavailable,
    ClientNotOpen,
    RequestRefused,
    RunFailed,
    SubmittedRun,
)
from agentstream.consumers.client.errors import in_words
from agentstream.consumers.client.requests import Content, RequestOptions, cancel_of, prepare, request_of
from agentstream.producers.connection import KafkaConnection
from agentstream.schemas.errors import ErrorCode, Problem
from agentstream.schemas.messages import Message
from agentstream.schemas.records import Position
from agentstream.schemas.requests import AgentParameters, InvokeRequest
from agentstream.schemas.trace import TraceContext
from tests.support.runs import result_of


def test_a_text_is_one_user_turn_with_an_id_and_a_session_of_its_own() -> None:
    request = request_of("hi", {})
    assert request.messages == (Message.of_text("user", "hi"),)
    assert UUID(request.id or "").version == 7
    assert request.session_id == request.id


def test_an_id_that_the_caller_did_not_choose_is_new_also_if_he_had_the_request_prepared() -> None:
    prepared = prepare("hi", {})
    assert (prepared.run_id, prepared.body_hash) == (prepared.request.id, None)
    assert prepare(prepared, {}) is prepared
    assert prepare("hi", {"run_id": "mine"}).body_hash is not None
    with pytest.raises(RequestRefused, match="prepared"):
        prepare(prepared, {"session_id": "s"})


def test_messages_may_be_plain_dictionaries_in_either_form() -> None:
    request = request_of(
        [
            {"role": "user", "content": "hi"},
            Message.of_text("assistant", "hello"),
            {"role": "user", "parts": [{"type": "text", "content": "bye"}]},
        ],
        {},
    )
    assert [(message.role, message.text) for message in request.messages] == [
        ("user", "hi"),
        ("assistant", "hello"),
        ("user", "bye"),
    ]


def test_options_go_before_what_a_given_request_says_and_leave_the_rest() -> None:
    given = InvokeRequest(
        id="a", session_id="s", ttl_ms=5, messages=(Message.of_text("user", "hi"),), metadata={"k": "v"}
    )
    deadline = datetime(2030, 1, 1, tzinfo=UTC)
    request = request_of(given, {"session_id": "t", "deadline": deadline, "parameters": {"tools": ["bash"]}})
    assert request == given.model_copy(
        update={"session_id": "t", "deadline": deadline, "parameters": AgentParameters(tools=("bash",))}
    )


def test_a_run_id_of_the_callers_own_is_kept_and_names_the_session_too() -> None:
    request = request_of("hi", {"run_id": "mine"})
    assert (request.id, request.session_id) == ("mine", "mine")


def _nested(depth: int) -> object:
    return [_nested(depth - 1)] if depth else 0


@pytest.mark.parametrize(
    ("content", "options", "where"),
    [
        ([], {}, "messages"),
        ([{"role": "assistant", "content": "hi"}], {}, "last message"),
        ([{"role": "user", "content": 5}], {}, "messages.0"),
        ("hi", {"run_id": "../x"}, "id"),
        ("hi", {"parameters": {"model": "no slash"}}, "parameters.model"),
        ("hi", {"ttl_ms": "5"}, "ttl_ms"),
        ("hi", {"parameters": {"harness": {"kind": "pi", "options": {"a": _nested(99)}}}}, "nested more than 64 deep"),
    ],
)
def test_what_no_worker_would_accept_is_refused_before_it_is_sent(
    content: list[dict[str, object]], options: dict[str, object], where: str
) -> None:
    with pytest.raises(RequestRefused, match=where):
        request_of(content, options)  # type: ignore[arg-type]


def test_an_option_that_a_request_does_not_have_is_refused() -> None:
    options = cast("RequestOptions", {"session_id": "s", "tools": ["bash"]})
    with pytest.raises(RequestRefused, match=r"`tools` is no option of a request.*go into `parameters`"):
        request_of("hi", options)


@pytest.mark.parametrize(
    ("parameters", "why"),
    [
        ({"foo": 1}, "parameters.foo: there is no such parameter; there are model, "),
        ({"modle": "a/b"}, "parameters.modle: there is no such parameter; did you mean model?"),
        ({"max_turns": 3}, "parameters.max_turns: there is no such parameter; did you mean limits.max_turns?"),
        (
            {"limits": {"max_turn": 3}},
            "parameters.limits.max_turn: there is no such parameter; did you mean limits.max_turns?",
        ),
    ],
)
def test_a_parameter_that_would_have_no_effect_is_refused(parameters: dict[str, object], why: str) -> None:
    # Workers ignore what they do not know: a run with a typo in its limits had none, and nobody was told.
    with pytest.raises(RequestRefused) as refused:
        request_of("hi", {"parameters": parameters})
    assert str(refused.value).startswith(f"not a valid request: {why}")


@pytest.mark.parametrize(
    ("message", "where"),
    [
        (
            {"role": "user", "contnet": "hi"},
            "messages.1.contnet: there is no such field; did you mean messages.1.content?",
        ),
        ({"role": "user", "content": "hi", "images": ["x"]}, "messages.1.images"),
        ({"role": "user", "parts": [{"type": "text", "content": "hi", "lang": "en"}]}, "messages.1.parts.0.lang"),
    ],
)
def test_a_field_of_a_callers_message_that_no_agent_would_see_is_refused(
    message: dict[str, object], where: str
) -> None:
    with pytest.raises(RequestRefused) as refused:
        request_of([{"role": "user", "content": "before"}, message], {})
    assert str(refused.value).startswith(f"not a valid request: {where}")


def test_what_a_newer_worker_has_said_may_have_fields_that_this_client_does_not_know() -> None:
    said = {"role": "assistant", "parts": [{"type": "text", "content": "hello", "signature": "…"}], "mood": "good"}
    assert request_of([said, {"role": "user", "content": "hi"}], {}).messages[0].text == "hello"


@pytest.mark.parametrize(
    ("content", "options", "place"),
    [
        ("half an emoji: \ud83d", {}, "messages.0.parts.0.content"),
        ([Message.of_text("assistant", "\ud800"), {"role": "user", "content": "hi"}], {}, "messages.0.parts.0.content"),
        ("hi", {"session_id": "s\ud800"}, "session_id"),
        ("hi", {"metadata": {"a": "\ud800"}}, "metadata.a"),
        ("hi", {"metadata": {"\ud800": "a"}}, "metadata.?"),
        ("hi", {"trace_target": "\ud800"}, "trace_target"),
        ("hi", {"parameters": {"agents_md": "\ud800"}}, "parameters.agents_md"),
        (
            "hi",
            {"parameters": {"harness": {"kind": "pi", "options": {"a": ["\ud800"]}}}},
            "parameters.harness.options.a.0",
        ),
        (
            "\N{REPLACEMENT CHARACTER}",
            {"parameters": {"harness": {"kind": "pi", "options": {"\ud800": 1}}}},
            "parameters.harness.options",
        ),
    ],
)
def test_what_utf8_has_no_place_for_is_refused_and_not_sent_as_something_else(
    content: Content, options: RequestOptions, place: str
) -> None:
    # It arrived as U+FFFD: the agent was asked something else.
    with pytest.raises(RequestRefused) as refused:
        prepare(content, options)
    assert str(refused.value) == rf"not a valid request: {place}: a lone surrogate such as \ud800 is no character"


def test_a_replacement_character_is_a_character() -> None:
    assert request_of("\N{REPLACEMENT CHARACTER}", {}).messages[0].text == "\N{REPLACEMENT CHARACTER}"


def test_why_a_run_is_cancelled_must_be_text_too() -> None:
    with pytest.raises(RequestRefused, match=r"^reason: a lone surrogate"):
        cancel_of("r", "\udcff", None)


def test_a_client_wants_to_know_where_the_brokers_are() -> None:
    with pytest.raises(TypeError):
        AgentClient()
    with pytest.raises(TypeError):
        AgentClient("localhost:9092", connection=KafkaConnection(bootstrap_servers="localhost:9092"))


async def test_a_client_without_a_broker_says_so_and_leaves_nothing(unused_tcp_port: int) -> None:
    with pytest.raises(BrokerUnavailable):
        async with AgentClient(f"127.0.0.1:{unused_tcp_port}"):
            pass
    assert asyncio.all_tasks() == {asyncio.current_task()}


SENT = SubmittedRun(
    run_id="r",
    session_id="s",
    position=Position(topic="t", partition=0, offset=0),
    trace=TraceContext.fresh(),
    results_from=0,
    deltas_from=0,
)
USES: dict[str, Callable[[AgentClient], Awaitable[object]]] = {
    "submit": lambda client: client.submit("hi"),
    "invoke": lambda client: client.invoke("hi"),
    "wait": lambda client: client.wait(SENT),
    "stream": lambda client: client.stream("hi").__aenter__(),
    "follow": lambda client: client.follow(SENT).__aenter__(),
    "history": lambda client: client.history("s"),
    "cancel": lambda client: client.cancel("r"),
    "session": lambda client: client.session("s").send("hi"),
}


@pytest.mark.parametrize("use", USES)
async def test_a_client_that_is_not_open_says_so_before_it_opens_anything(
    use: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    # It worked, and left producers and consumers that nobody closed.
    async def connected(_self: object) -> None:
        raise AssertionError("connects")

    monkeypatch.setattr("aiokafka.client.AIOKafkaClient.bootstrap", connected)
    with pytest.raises(ClientNotOpen, match="inside `async with AgentClient"):
        await USES[use](AgentClient("127.0.0.1:1"))


@pytest.mark.parametrize("timeout", [0, -1, float("nan")])
async def test_a_timeout_that_leaves_no_time_is_a_wrong_argument(timeout: float) -> None:
    # It was told as `the brokers did not answer within -1 s`.
    client = AgentClient("127.0.0.1:1")
    with pytest.raises(ValueError, match="must be above 0"):
        await client.invoke("hi", timeout=timeout)
    with pytest.raises(ValueError, match="must be above 0"):
        async with client.stream("hi", timeout=timeout):
            pass


def test_a_failed_run_says_why_in_one_line() -> None:
    failed = result_of().model_copy(update={"status": "failed", "error": Problem.of(ErrorCode.NO_OUTPUT)})
    assert str(RunFailed(failed)) == "run run failed: no_output: The agent produced nothing"


def test_what_the_kafka_library_raised_is_said_in_words() -> None:
    raw = "Unable to bootstrap from [('localhost', 9092, <AddressFamily.AF_UNSPEC: 0>)]"
    assert in_words(KafkaConnectionError(raw)) == "Unable to bootstrap from localhost:9092"
    assert in_words(TimeoutError()) == "no answer in time"
    assert in_words(MessageSizeTooLargeError("big")) == "big"
    lacking = "this user lacks a right on topic a.b: reading it takes Read, sending to it Write"
    assert in_words(TopicAuthorizationFailedError("a.b")) == in_words(TopicAuthorizationFailedError({"a.b"})) == lacking
