"""What a run used and cost, over all its attempts: a voided attempt is billed like any other."""

from decimal import Decimal

from agentstream.consumers.harness.port import HarnessEvent
from agentstream.schemas.events import MessageEnded, TurnEnded
from agentstream.schemas.messages import Cost, Usage


class Bill:
    """Adds up usage per provider and model, and cost as long as it is known for everything that was used."""

    def __init__(self) -> None:
        self._usage: dict[tuple[str, str], Usage] = {}
        self._costs: list[Cost] = []
        self._is_known = True
        self._used_in_attempt = False
        self._billed_turns: set[int] = set()

    @property
    def usage(self) -> tuple[Usage, ...]:
        """Per provider and model, in the order of first use."""
        return tuple(self._usage.values())

    @property
    def cost(self) -> Cost | None:
        """What it cost; None where any part of it is unknown, since a part would be taken for the whole."""
        if not self._is_known or not self._costs or len({cost.currency for cost in self._costs}) > 1:
            return None
        amount = sum((Decimal(cost.amount) for cost in self._costs), Decimal())
        return self._costs[-1].model_copy(update={"amount": format(amount, "f")})

    def saw(self, event: HarnessEvent) -> None:
        """Count the usage of an event. A turn's own usage counts only where none of its messages had one."""
        if isinstance(event, MessageEnded) and event.usage is not None:
            self._billed_turns.add(event.turn)
            self._add(event.usage)
        elif isinstance(event, TurnEnded) and event.usage is not None and event.turn not in self._billed_turns:
            self._add(event.usage)

    def close_attempt(self, cost: Cost | None) -> None:
        """An attempt ended, at this cost."""
        if cost is not None:
            self._costs.append(cost)
        elif self._used_in_attempt:
            self._is_known = False
        self._used_in_attempt = False
        self._billed_turns.clear()

    def _add(self, usage: Usage) -> None:
        self._used_in_attempt = True
        key = (usage.provider, usage.model)
        before = self._usage.get(key)
        self._usage[key] = usage if before is None else _sum(before, usage)


def _sum(one: Usage, other: Usage) -> Usage:
    reasoning = [count for count in (one.reasoning_tokens, other.reasoning_tokens) if count is not None]
    return Usage(
        provider=one.provider,
        model=one.model,
        input_tokens=one.input_tokens + other.input_tokens,
        output_tokens=one.output_tokens + other.output_tokens,
        cached_input_tokens=one.cached_input_tokens + other.cached_input_tokens,
        cache_write_tokens=one.cache_write_tokens + other.cache_write_tokens,
        reasoning_tokens=sum(reasoning) if reasoning else None,
    )
