"""What a run used and cost."""

from agentstream.consumers.bill import Bill
from agentstream.schemas.events import MessageEnded, TurnEnded
from agentstream.schemas.messages import Cost, Message, Usage

SAID = Message.of_text("assistant", "hi")


def usage(model: str = "m", *, tokens: int = 1, reasoning: int | None = None) -> Usage:
    return Usage(provider="p", model=model, input_tokens=tokens, output_tokens=2 * tokens, reasoning_tokens=reasoning)


def message(own: Usage | None, turn: int = 1) -> MessageEnded:
    return MessageEnded(turn=turn, message_id="m", message=SAID, usage=own)


def cost(amount: str, currency: str = "USD") -> Cost:
    return Cost(amount=amount, currency=currency, source="provider")


def test_usage_adds_up_for_each_model() -> None:
    bill = Bill()
    for event in (message(usage()), message(usage("n")), message(usage(tokens=4, reasoning=3), turn=2)):
        bill.saw(event)
    assert bill.usage == (usage(tokens=5, reasoning=3), usage("n"))


def test_a_turn_repeats_the_usage_of_its_message_and_counts_only_without() -> None:
    bill = Bill()
    bill.saw(message(usage()))
    bill.saw(TurnEnded(turn=1, usage=usage()))
    bill.saw(message(None, turn=2))
    bill.saw(TurnEnded(turn=2, usage=usage(tokens=10)))
    assert bill.usage == (usage(tokens=11),)


def test_turns_of_another_attempt_are_other_turns() -> None:
    bill = Bill()
    bill.saw(message(usage()))
    bill.close_attempt(None)
    bill.saw(TurnEnded(turn=1, usage=usage()))
    assert bill.usage == (usage(tokens=2),)


def test_cost_is_exact_and_told_only_if_all_of_it_is_known() -> None:
    assert Bill().cost is None
    bill = Bill()
    bill.close_attempt(cost("0.1"))
    bill.close_attempt(None)  # it used nothing
    bill.close_attempt(cost("0.2"))
    assert bill.cost == cost("0.3")


def test_one_attempt_whose_cost_is_unknown_makes_the_whole_unknown() -> None:
    bill = Bill()
    bill.close_attempt(cost("0.1"))
    bill.saw(message(usage()))
    bill.close_attempt(None)
    assert bill.cost is None


def test_tiny_amounts_are_written_without_exponent() -> None:
    bill = Bill()
    bill.close_attempt(cost("0.00000001"))
    assert bill.cost == cost("0.00000001")


def test_currencies_are_not_mixed() -> None:
    bill = Bill()
    bill.close_attempt(cost("1"))
    bill.close_attempt(cost("1", "EUR"))
    assert bill.cost is None
