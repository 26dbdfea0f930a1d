"""A conversation: keeps the history and sends it with each turn.

    async with client.session("s1") as session:
        run = await session.send("My name is Ada.")
        async for event in run:
            …
        run = await session.send("What is my name?")   # is asked with all that was said before
        result = await run.result()

A session on Kafka orders its runs and remembers nothing: what the agent knows of earlier turns is what is sent along.
"""

from collections.abc import Iterable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from dataclasses import dataclass
from typing import Protocol, Self, Unpack

from pydantic import ValidationError
from uuid_utils.compat import uuid7

from agentstream.consumers.client.checking import first_flaw, unknown_in_messages
from agentstream.consumers.client.errors import BrokerUnavailable, ClientError, RequestRefused, RunTimeout
from agentstream.consumers.client.history import Messages, after_turn
from agentstream.consumers.client.requests import Content, RequestOptions, TurnOptions
from agentstream.consumers.client.run import Run
from agentstream.consumers.client.submitted import SubmittedRun
from agentstream.schemas.messages import Message
from agentstream.schemas.results import InvokeResult

Turn = str | Sequence[Message | Mapping[str, object]]
"""What is said in one turn: a text, or messages of which the last is from `user` or `tool`."""


class Streams(Protocol):
    """What a session needs of its client."""

    def stream(
        self, content: Content, *, timeout: float | None = None, **options: Unpack[RequestOptions]
    ) -> AbstractAsyncContextManager[Run]:
        """See `AgentClient.stream`."""

    async def wait(self, submitted: SubmittedRun, *, timeout: float | None = None) -> InvokeResult:
        """See `AgentClient.wait`."""


@dataclass(frozen=True, kw_only=True, slots=True)
class _UnderWay:
    """The newest turn, until it has ended and is part of the history."""

    run: Run
    new: Messages
    following: AsyncExitStack


class AgentSession:
    """One conversation, made by `AgentClient.session`. Opened and closed by `async with`; for one task.

    Leaving it while a run is under way cancels that run, as leaving `AgentClient.stream` does. While a run is followed
    the client reads what happens to it; `settle` ends that, so call it before a long pause.
    """

    def __init__(
        self,
        client: Streams,
        session_id: str | None,
        history: Iterable[Message | Mapping[str, object]],
        options: TurnOptions,
    ) -> None:
        """`session_id`: None for a new one. `options` are those of every turn. Raises RequestRefused."""
        if "run_id" in options:
            raise RequestRefused("`run_id` is no option of a session: each of its runs has an id of its own")
        self._client = client
        self._history = _messages(tuple(history))
        self._options = options
        self._under_way: _UnderWay | None = None
        self.session_id = session_id or str(uuid7())

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        if (turn := self._under_way) is not None:
            self._history, self._under_way = self.history, None
            await turn.following.aclose()

    @property
    def history(self) -> tuple[Message, ...]:
        """The conversation: what the next turn is asked with. A turn is part of it once its result has come.

        Of a run that was stopped or failed what it said so far stays; one that said nothing leaves nothing.
        """
        turn = self._under_way
        result = None if turn is None else turn.run.known_result
        return self._history if turn is None or result is None else self._after(turn, result)

    async def send(
        self, content: Turn, *, timeout: float | None = None, run_id: str | None = None, **options: Unpack[TurnOptions]
    ) -> Run:
        """Ask, with the whole conversation before it; returns once the brokers hold the request.

        The turn before is settled first: with it the runs of a session happen one after the other anyhow. `timeout` is
        that of `AgentClient.stream`, in seconds, and bounds the wait for the turn before as well. `options` go before
        those of the session. Raises what `AgentClient.stream` raises on entering, and RunTimeout for the turn before.
        """
        new = _messages((Message.of_text("user", content),) if isinstance(content, str) else tuple(content))
        await self.settle(timeout=timeout)
        asked: TurnOptions = {**self._options, **options}
        async with AsyncExitStack() as opening:
            stream = self._client.stream(
                (*self._history, *new), timeout=timeout, run_id=run_id, session_id=self.session_id, **asked
            )
            run = await opening.enter_async_context(stream)
            self._under_way = _UnderWay(run=run, new=new, following=opening.pop_all())
        return run

    async def settle(self, *, timeout: float | None = None) -> InvokeResult | None:
        """Wait for the run under way and take its turn into the history. None if there is none.

        Raises RunTimeout or BrokerUnavailable, and may then be called again; ResultUnreadable and the like, after which
        the turn is not part of the history.
        """
        turn = self._under_way
        if turn is None:
            return None
        try:
            result = turn.run.known_result or await self._client.wait(turn.run.submitted, timeout=timeout)
        except (RunTimeout, BrokerUnavailable):
            raise
        except ClientError:
            await self._over(turn, self._history)
            raise
        await self._over(turn, self._after(turn, result))
        return result

    async def _over(self, turn: _UnderWay, history: Messages) -> None:
        self._history, self._under_way = history, None
        await turn.following.aclose()

    def _after(self, turn: _UnderWay, result: InvokeResult) -> Messages:
        said = result.messages
        if result.status != "completed":
            # The result holds finished messages only; of the one that was cut off the deltas tell.
            seen = turn.run.transcript.messages()
            said = seen if len(seen) > len(said) else said
        return after_turn(self._history, turn.new, said)


def _messages(given: Sequence[Message | Mapping[str, object]]) -> Messages:
    if unknown := unknown_in_messages(given):
        raise RequestRefused(f"not a message: {unknown}")
    try:
        return tuple(each if isinstance(each, Message) else Message.model_validate(each) for each in given)
    except ValidationError as error:
        raise RequestRefused(f"not a message: {first_flaw(error)}") from error
