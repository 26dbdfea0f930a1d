"""What a conversation has come to, and what of an agent's words is sent again."""

from agentstream.consumers.client.history import RecordedTurn, after_turn, carries_history, rebuilt, whole
from agentstream.schemas.messages import Message, ReasoningPart, ToolCallPart, ToolCallResponsePart


def user(text: str) -> Message:
    return Message.of_text("user", text)


def agent(text: str) -> Message:
    return Message.of_text("assistant", text)


def call(name: str) -> Message:
    return Message(role="assistant", parts=(ToolCallPart(id=name, name="bash"),))


def answered(name: str) -> Message:
    return Message(role="tool", parts=(ToolCallResponsePart(id=name, response="done"),))


def turn(*asked: Message, said: tuple[Message, ...] | None = ()) -> RecordedTurn:
    return RecordedTurn(asked=asked, said=said)


def test_a_turn_is_what_was_asked_and_what_was_said() -> None:
    assert after_turn((user("a"), agent("b")), (user("c"),), [agent("d")]) == (
        user("a"),
        agent("b"),
        user("c"),
        agent("d"),
    )


def test_a_turn_in_which_nothing_was_said_leaves_nothing() -> None:
    thinking = Message(role="assistant", parts=(ReasoningPart(content="hm"),))
    before = (user("a"), agent("b"))
    for said in ([], [agent(" ")], [thinking], [call("1")]):
        assert after_turn(before, (user("c"),), said) == before


def test_a_tool_call_without_an_answer_is_cut_off_and_an_answered_one_stays() -> None:
    # OpenAI and Anthropic refuse a conversation with a call that nobody answered: a stopped run ends with one.
    said = [agent("I look."), call("1"), answered("1"), call("2"), agent("never")]
    assert whole(said) == (agent("I look."), call("1"), answered("1"))


def test_a_session_of_callers_who_keep_the_history_is_its_last_request_and_result() -> None:
    found = rebuilt(
        [
            turn(user("a"), said=(agent("b"),)),
            turn(user("a"), agent("b, shortened"), user("c"), said=(agent("d"),)),
        ]
    )
    assert found.messages == (user("a"), agent("b, shortened"), user("c"), agent("d"))
    assert found.lost == 0


def test_a_session_of_callers_who_keep_nothing_is_put_together_turn_by_turn() -> None:
    rule = Message.of_text("system", "Be brief.")
    found = rebuilt(
        [turn(rule, user("a"), said=(agent("b"),)), turn(rule, user("c"), said=()), turn(user("e"), said=(agent("f"),))]
    )
    assert found.messages == (rule, user("a"), agent("b"), user("e"), agent("f"))


def test_what_was_lost_before_a_request_that_carries_the_history_is_not_missed() -> None:
    carried = (user("a"), agent("b"), user("c"))
    assert carries_history(carried)
    assert not carries_history((user("a"),))
    assert rebuilt([turn(user("a"), said=None), turn(*carried, said=(agent("d"),))]).lost == 0
    found = rebuilt(
        [turn(*carried, said=(agent("d"),)), turn(user("e"), said=None), turn(user("f"), said=(agent("g"),))]
    )
    assert found.lost == 1
    assert found.messages == (*carried, agent("d"), user("f"), agent("g"))
