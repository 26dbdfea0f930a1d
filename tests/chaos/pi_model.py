"""The offline model with moods: away, slow, overrun or cut off for a while. It looks at its callers."""

import asyncio
from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager

from agentstream.infra.offline_model import Call, OfflineModel
from agentstream.infra.offline_model.http import HttpRequest
from agentstream.infra.offline_model.script import Fault

FAULTS: Mapping[str, Fault] = {
    "429": Fault(kind="429", retry_after="1"),
    "500": Fault(kind="500"),
    "cut": Fault(kind="cut"),
    "stall": Fault(kind="stall"),
    "hang": Fault(kind="hang"),
}
"""What a call gets in the moods that are faults of the script's own; `slow` and `down` are not."""
SLOW_S = 2.0
KEYS: Mapping[str, str] = {name: f"sk-chaos-{name}-0123456789" for name in ("red", "green", "blue")}
"""Credentials by name. A prompt says whose it is, see `owner_of`."""


class MoodyModel(OfflineModel):
    """Answers by the script unless its mood says otherwise, and notes every call with somebody else's secret."""

    def __init__(self) -> None:
        super().__init__(api_keys=frozenset(KEYS.values()))
        self.mood = "normal"
        self.moods_met: Counter[str] = Counter()
        """Calls by the mood they met."""
        self.strangers: list[str] = []
        """Calls with a key or a tool's answer that is not their run's."""
        self.traces: defaultdict[str, set[str]] = defaultdict(set)
        """The trace ids that a run's calls came with, by run id."""

    @asynccontextmanager
    async def being(self, mood: str) -> AsyncIterator[None]:
        """In this mood while the body runs. `down` closes the port and cuts what is under way."""
        self.mood = mood
        if mood == "down":
            await self.__aexit__(None, None, None)
        try:
            yield
        finally:
            self.mood = "normal"
            if mood == "down":
                await self.__aenter__()

    async def _complete(self, request: HttpRequest, writer: asyncio.StreamWriter) -> bool:
        self.moods_met[self.mood] += 1
        if self.mood == "slow":
            await asyncio.sleep(SLOW_S)
        return await super()._complete(request, writer)

    def _due(self, fault: Fault | None, call: Call) -> Fault | None:
        self._look_at(call)
        return FAULTS.get(self.mood) or super()._due(fault, call)

    def _look_at(self, call: Call) -> None:
        run_id, owner = owner_of(call.conversation.prompt)
        if call.api_key != KEYS[owner]:
            self.strangers.append(f"{run_id} of {owner} came with the key {call.api_key}")
        self.traces[run_id].add(call.headers.get("traceparent", "--").split("-")[1])
        foreign = [turn.text for turn in call.conversation.since_prompt if "token-" in turn.text]
        if any(f"token-{run_id}." not in text for text in foreign):
            self.strangers.append(f"{run_id} brings a tool's answer of another run: {foreign}")


def owner_of(prompt: str) -> tuple[str, str]:
    """Run id and name of the credentials: the first two words of every prompt of the load."""
    run_id, owner = prompt.split(maxsplit=2)[:2]
    return run_id, owner
