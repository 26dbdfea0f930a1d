"""What the offline model decides, without a network."""

import json

import pytest

from agentstream.infra.offline_model.conversation import plan_conversation
from agentstream.infra.offline_model.directives import parse_directives
from agentstream.infra.offline_model.script import (
    OFFLINE_NOTE,
    Conversation,
    Fault,
    Plan,
    Reply,
    Tokens,
    ToolCall,
    Turn,
)
from agentstream.infra.offline_model.wire import chunks, parse_conversation

ALL = frozenset({"bash", "read", "write"})


def talk(*turns: tuple[str, str], system: str = "", tools: frozenset[str] = ALL) -> Conversation:
    said = tuple(Turn(role=role, text=text) for role, text in turns)
    return Conversation(model="m", system=system, turns=said, tools=tools)


def answer(*turns: tuple[str, str], system: str = "") -> str:
    return plan_conversation(talk(*turns, system=system)).steps[-1].text


def calls(prompt: str, tools: frozenset[str] = ALL) -> list[tuple[str, object]]:
    plan = plan_conversation(talk(("user", prompt), tools=tools))
    return [(call.name, next(iter(call.arguments.values()))) for step in plan.steps for call in step.tool_calls]


def test_directives_are_steps_in_order() -> None:
    plan = parse_directives(
        'go [[think: hm]][[tool:bash {"command": "x[[1]]"}]] and [[and:read {"path": "a"}]] [[say: ok. ]]'
    )
    assert plan == Plan(
        steps=(
            Reply(
                reasoning="hm",
                tool_calls=(
                    ToolCall(name="bash", arguments={"command": "x[[1]]"}),
                    ToolCall(name="read", arguments={"path": "a"}),
                ),
            ),
            Reply(text="ok."),
        )
    )


def test_settings_change_the_plan_and_are_no_steps() -> None:
    plan = parse_directives("[[fail:429 retry_after=1 times=2]][[pace: 20]][[usage: prompt=9 completion=1 cached=3]]")
    assert plan == Plan(
        fault=Fault(kind="429", retry_after="1", times=2), pace_ms=20, tokens=Tokens(prompt=9, completion=1, cached=3)
    )


def test_a_loop_never_ends_and_a_script_stays_at_its_last_step() -> None:
    looping = parse_directives('[[loop:bash {"command": "true"}]]')
    assert looping is not None
    assert looping.step(0) == looping.step(99)
    script = parse_directives("[[say: one]][[say: two]]")
    assert script is not None
    assert [script.step(number).text for number in range(4)] == ["one", "two", "two", "two"]


@pytest.mark.parametrize(
    "prompt",
    [
        "[[tool: ]]",
        "[[tool:bash]]",
        '[[tool:bash {"a": 1}',
        "[[tool:bash [1]]]",
        "[[say: x",
        "[[big: x]]",
        "[[length]]",
    ],
)
def test_a_misspelt_directive_is_an_error_and_no_answer(prompt: str) -> None:
    with pytest.raises(ValueError):  # noqa: PT011  # any of them: the server answers 400 with its words
        parse_directives(prompt)


@pytest.mark.parametrize("prompt", ["", "hello", "[[ what", "see [[link]] there", "[[sayonara]]"])
def test_a_prompt_without_directives_has_none(prompt: str) -> None:
    assert parse_directives(prompt) is None


@pytest.mark.parametrize(
    ("prompt", "expected"),
    [
        ("run `uname -a` with bash and tell me", [("bash", "uname -a")]),
        ("Please execute the command 'ls -l | wc -l'.", [("bash", "ls -l | wc -l")]),
        ("Read notes.txt please", [("read", "notes.txt")]),
        ('Write "hello" to the file a/b.txt, then read a/b.txt', [("write", "a/b.txt"), ("read", "a/b.txt")]),
        ("I run every day. I read books.", []),
    ],
)
def test_plain_requests_call_the_tools_they_name(prompt: str, expected: list[tuple[str, str]]) -> None:
    assert calls(prompt) == expected


def test_a_tool_that_is_not_offered_is_not_called() -> None:
    assert calls("run `uname -a` with bash", frozenset({"read"})) == []


def test_the_second_turn_uses_what_the_history_holds_and_nothing_else() -> None:
    history = (("user", "My name is Ada and my favourite colour is deep blue."), ("assistant", "Nice."))
    assert answer(*history, ("user", "What is my name?")).startswith("Your name is Ada.")
    assert answer(*history, ("user", "what's my favourite colour?")).startswith("Your favourite colour is deep blue.")
    assert answer(("user", "What is my name?")).startswith("Nobody told me your name")
    assert answer(("user", "What is your name?"), system="Your name is Bob.").startswith("My name is Bob.")


def test_the_answer_reports_what_the_tools_said() -> None:
    said = answer(("user", "run `uname` with bash"), ("assistant", ""), ("tool", "Linux\n"))
    assert "`uname` gave: Linux" in said


@pytest.mark.parametrize("prompt", ["hello", "My name is Ada", "count to 3", "run `x`", "Why?", ""])
def test_every_answer_says_that_it_is_offline(prompt: str) -> None:
    assert answer(("user", prompt)).endswith(OFFLINE_NOTE)


def test_only_the_steps_since_the_last_prompt_count() -> None:
    conversation = talk(("user", "a"), ("assistant", "b"), ("user", "c"), ("assistant", ""), ("tool", "out"))
    assert (conversation.prompt, conversation.steps_taken, conversation.tool_outputs) == ("c", 1, ("out",))


def test_the_chunks_joined_are_the_reply() -> None:
    reply = Reply(text="one  two\nthree ", reasoning="hm", tool_calls=(ToolCall(name="t", arguments={"a": "ü😀"}),))
    documents = [json.loads(c) for c in chunks(reply, model="m", call_id="1", tokens=Tokens(prompt=5, completion=2))]
    deltas = [choice["delta"] for document in documents for choice in document["choices"]]
    assert "".join(delta.get("content", "") for delta in deltas) == reply.text
    assert "".join(delta.get("reasoning_content", "") for delta in deltas) == "hm"
    pieces = [call["function"].get("arguments", "") for d in deltas for call in d.get("tool_calls", [])]
    assert json.loads("".join(pieces)) == {"a": "ü😀"}
    assert documents[-2]["choices"][0]["finish_reason"] == "tool_calls"
    assert documents[-1]["usage"]["prompt_tokens"] == 5


def test_a_request_is_read_whatever_shape_its_content_has() -> None:
    conversation = parse_conversation(
        {
            "model": "x",
            "messages": [
                {"role": "system", "content": "be brief"},
                {
                    "role": "user",
                    "content": [{"type": "text", "text": "a"}, {"type": "image_url"}, "odd", {"text": "b"}],
                },
                {"role": "assistant", "content": None},
            ],
            "tools": [{"type": "function", "function": {"name": "bash"}}, "odd", {}],
        }
    )
    assert conversation.system == "be brief"
    assert [turn.text for turn in conversation.turns] == ["ab", ""]
    assert conversation.tools == {"bash"}
