"""What is said to the agent in `chat` and what it answers, in the event loop.

Turn           a message and how far it came
Conversation   one session after the other
"""

import asyncio
from contextlib import AsyncExitStack
from dataclasses import dataclass

from agentstream.consumers.client import AgentClient, AgentSession, ClientError, RequestRefused, Run, RunTimeout
from agentstream.consumers.client.requests import RequestOptions, TurnOptions
from agentstream.infra.cli.answering import continued, follow, silence_of
from agentstream.infra.cli.calling import Where, calling
from agentstream.infra.cli.cancellations import Cancellations, RunsGoOn
from agentstream.infra.cli.screen import Screen
from agentstream.infra.cli.silence import BrokerSilence, watching
from agentstream.infra.rendering import problem_line, shortened, tokens
from agentstream.schemas.messages import Message
from agentstream.schemas.results import InvokeResult


@dataclass(frozen=True, kw_only=True, slots=True)
class ChatManner:
    """How to talk."""

    timeout: float
    """Seconds to wait for each answer."""
    accept_gaps: bool
    """Whether to continue a session although turns of it are gone."""
    interactive: bool = False
    """Whether somebody types, who can be told what to type."""


@dataclass(kw_only=True, slots=True)
class Turn:
    """A message and how far it came."""

    task: "asyncio.Task[object] | None"
    """What sends it and shows the answer."""
    run_id: str | None = None
    """Its run, once the brokers may have the request; until then it waits for the run before."""
    run: Run | None = None
    """The same, once the brokers have it."""
    stopped: bool = False
    """Whether the user asked for it to stop."""
    let_go: bool = False
    """Whether nobody waits for it any more."""


class Conversation:
    """One session after the other, in the event loop. `open` first, `close` last, also if `open` failed."""

    def __init__(self, where: Where, options: RequestOptions, manner: ChatManner, screen: Screen) -> None:
        self._where = where
        self._session_id = options.get("session_id")
        self._options = TurnOptions(parameters=options.get("parameters", {}), metadata=options.get("metadata", {}))
        self._manner = manner
        self._screen = screen
        self._stack = AsyncExitStack()
        self._talking = AsyncExitStack()
        self._client: AgentClient
        self._cancellations = Cancellations(screen)
        self._run: Run | None = None
        self._turn: Turn | None = None
        self.session: AgentSession

    async def open(self, continued_session: str | None) -> None:
        """Connect, and begin or continue. Raises as the client does."""
        self._client = await self._stack.enter_async_context(calling(self._where))
        self._cancellations.open(self._client)
        if continued_session is None:
            await self._begin(self._session_id)
            return
        found = await self._client.history(
            continued_session, lost_is_fine=self._manner.accept_gaps, progress=self._screen.note
        )
        self._screen.note(continued(found))
        last = next((each.text for each in reversed(found.messages) if each.role == "assistant" and each.text), None)
        if last is not None:
            self._screen.note(f"it said last: {shortened(last)}")
        await self._begin(continued_session, found.messages)

    async def close(self) -> None:
        """Leave; a run that is under way, or on its way to the brokers, is cancelled, and it is said whether it is."""
        # First: a request whose acknowledgement was still to come found a client that was closed, and its run went on.
        turn = self._turn
        self._leave_session()
        if turn is not None and turn.task is not None:
            turn.task.cancel()
        await self._cancellations.finish()
        if turn is not None and turn.task is not None:
            await asyncio.wait([turn.task])
        await self._talking.aclose()
        await self._stack.aclose()

    async def new(self) -> None:
        """A session that knows nothing of this one, at once: a run that is under way is cancelled meanwhile."""
        # It waited for the brokers to hold that: Ctrl-C ended the wait, and the session changed seconds later.
        if self._leave_session():
            self._screen.note("the run of the session before is being cancelled")
        await self._talking.aclose()
        self._run = None
        await self._begin(None)

    def _leave_session(self) -> bool:
        """Ask for what it has under way to end. Whether there was anything."""
        turn = self._turn
        left = [self._run.run_id] if self._run is not None and not self._run.over else []
        if turn is not None:
            turn.let_go = True
            left += [turn.run_id] if turn.run_id is not None and turn.run is None else []
        for run_id in left:
            self._cancellations.start(run_id)
        return bool(left)

    async def _begin(self, session_id: str | None, history: tuple[Message, ...] = ()) -> None:
        streams = RunsGoOn(self._client, self._is_sent)
        self.session = await self._talking.enter_async_context(
            AgentSession(streams, session_id, history, self._options)
        )

    def _is_sent(self, run_id: str) -> None:
        if self._turn is not None:
            self._turn.run_id = run_id

    async def answer(self, text: str) -> bool:
        """Say it, and show the answer. Whether it was answered."""
        turn = self._turn = Turn(task=asyncio.current_task())
        try:
            result = await self._answered(text, turn)
        except RunTimeout as error:
            unsent = "" if turn.run_id is not None else "; this one was not sent"
            self._screen.note(f"{error}; it goes on, and your next message waits for it{unsent}", "red")
        except RequestRefused as error:
            advice = "; /new begins a conversation without what was said here" if self._manner.interactive else ""
            self._screen.note(f"{error}{advice}", "red")
        except ClientError as error:
            self._screen.note(str(error), "red")
        except asyncio.CancelledError:
            if turn.let_go or not turn.stopped or turn.task is None:
                raise
            turn.task.uncancel()
            await self._stopped_before_it_ran(turn)
        else:
            self._show(result, stopped=turn.stopped)
            return result.status == "completed"
        finally:
            if self._turn is turn:
                self._turn = None
        return False

    async def _answered(self, text: str, turn: Turn) -> InvokeResult:
        connection = self._where.cluster.connection
        say = lambda line: self._screen.note(line, "yellow")  # noqa: E731
        # Sending to brokers that have died takes minutes: nobody said why.
        async with watching(BrokerSilence(asyncio.get_running_loop().time()), connection, say):
            run = await self.session.send(text, timeout=self._manner.timeout)
        if self._run is not None:
            self._cancellations.forget(self._run.run_id)  # the session waited for its end
        self._run = turn.run = run
        silence = silence_of(self._options)
        async with watching(silence, connection, say):
            result = await follow(run, self._screen, silence, as_json=False)
        await self.session.settle()
        self._cancellations.forget(run.run_id)
        return result

    async def stop(self) -> None:
        """Stop the answer that is asked for, and no other: do not send the message, or cancel its run."""
        turn = self._turn
        if turn is None or turn.task is None:
            return
        turn.stopped = True
        if turn.run is None:
            turn.task.cancel()  # `answer` says what became of it
        elif not turn.run.over and (why := await self._cancellations.failure(turn.run.run_id)):
            self._screen.note(f"run {turn.run.run_id} could not be stopped: {why}", "red")

    async def _stopped_before_it_ran(self, turn: Turn) -> None:
        if turn.run_id is None:
            self._screen.note(self._not_sent(), "yellow")
            return
        self._screen.note(f"cancelling run {turn.run_id} …")
        if why := await self._cancellations.failure(turn.run_id):
            self._screen.note(_may_go_on(turn.run_id, why), "red")
        else:
            self._screen.note(f"stopped while it was being sent; run {turn.run_id} is cancelled", "yellow")

    def _not_sent(self) -> str:
        before = "" if self._run is None else f"; run {self._run.run_id} goes on, and your next message waits for it"
        return f"stopped: it was not sent{before}"

    async def let_go(self) -> str:
        """Wait no longer for the answer, and for no broker. Says what is known of it."""
        turn, self._turn = self._turn, None
        if turn is None or turn.task is None:
            return "it has ended"
        turn.let_go = True
        turn.task.cancel()
        if turn.run is not None:
            return "not waited for; your next message waits until it has ended"
        if turn.run_id is None:
            return self._not_sent()
        self._cancellations.start(turn.run_id)
        return f"not waited for; {_may_go_on(turn.run_id, 'the brokers have not answered yet')}"

    def not_known_cancelled(self) -> list[str]:
        """What is said of runs that are left before the brokers were heard to hold that they are to end."""
        return [f"left at once; run {each} goes on or may go on" for each in self._cancellations.pending]

    def _show(self, result: InvokeResult, *, stopped: bool) -> None:
        if result.status == "completed" and not self._screen.for_people:
            self._screen.out(result.text)
        if result.status == "cancelled" and stopped:
            self._screen.note("stopped", "yellow")
        elif result.status != "completed":
            self._screen.note(problem_line(result), "red")
        cost = f"{result.cost.amount} {result.cost.currency}" if result.cost is not None else ""
        if spent := " · ".join(part for part in (tokens(result), cost) if part):
            self._screen.note(spent)

    def described(self) -> str:
        """Which session this is, on one line."""
        messages = len(self.session.history)
        line = f"session {self.session.session_id} · {messages} messages"
        return line if self._run is None else f"{line} · last run {self._run.run_id} · trace {self._run.trace_id}"


def _may_go_on(run_id: str, why: str) -> str:
    return f"it is not known whether the brokers have it: run {run_id} could not be cancelled and may go on: {why}"
