"""`agentstream chat`: a conversation at the terminal.

Conversation   what is said to the agent and what it answers, in the event loop
Chat           what is typed, in the main thread
"""

import asyncio
import sys
from concurrent.futures import CancelledError
from contextlib import AsyncExitStack
from dataclasses import dataclass, replace

from agentstream.consumers.client import AgentClient, AgentSession, ClientError, RequestRefused, Run, RunTimeout
from agentstream.consumers.client.requests import RequestOptions, TurnOptions
from agentstream.infra.cli.answering import CANCEL_SECONDS, continued, follow, silence_of
from agentstream.infra.cli.asking import Asked, request_options
from agentstream.infra.cli.calling import Where, calling, where_to
from agentstream.infra.cli.cancelling import whoever
from agentstream.infra.cli.chat_prompt import Prompt
from agentstream.infra.cli.context import Context
from agentstream.infra.cli.exits import FAILED, OK
from agentstream.infra.cli.loop_thread import LoopThread
from agentstream.infra.cli.screen import Screen
from agentstream.infra.cli.silence import BrokerSilence, watching
from agentstream.infra.rendering import problem_line, shortened, tokens
from agentstream.schemas.results import InvokeResult

_HELP = (
    "Ctrl-C     stop the answer; at the prompt: forget the line",
    "Ctrl-D     leave, as /exit does",
    "/new       begin a new session: the agent knows nothing of this one",
    "/session   which session this is, and its last run",
    "/help      this",
    "a line that ends in \\ goes on with the next one; begin with a space to say something that begins with /",
)


@dataclass(frozen=True, kw_only=True, slots=True)
class ChatManner:
    """How to talk."""

    timeout: float
    """Seconds to wait for each answer."""
    accept_gaps: bool
    """Whether to continue a session although turns of it are gone."""
    interactive: bool = False
    """Whether somebody types, who can be told what to type."""


def run_chat(context: Context, asked: Asked, manner: ChatManner) -> None:
    """Talk until the user leaves; exit code 1 if lines came from a pipe and one of them was not answered."""
    screen = Screen()
    options = request_options(asked)
    prompt = Prompt(screen)
    conversation = Conversation(where_to(context), options, replace(manner, interactive=prompt.interactive), screen)
    with LoopThread() as loop:
        try:
            loop.start(conversation.open(asked.continued)).result()
            code = Chat(loop, conversation, prompt, screen).talk()
        finally:
            loop.start(conversation.close()).result()
    if code != OK and not prompt.interactive:
        sys.exit(code)


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
        self._run: Run | None = None
        self._answering: asyncio.Task[object] | None = None
        self._stopping = False
        self._stopped: str | None = None
        self.session: AgentSession

    async def open(self, continued_session: str | None) -> None:
        """Connect, and begin or continue. Raises as the client does."""
        self._client = await self._stack.enter_async_context(calling(self._where))
        if continued_session is None:
            await self._begin(self._client.session(self._session_id, **self._options))
            return
        found = await self._client.history(
            continued_session, lost_is_fine=self._manner.accept_gaps, progress=self._screen.note
        )
        self._screen.note(continued(found))
        last = next((each.text for each in reversed(found.messages) if each.role == "assistant" and each.text), None)
        if last is not None:
            self._screen.note(f"it said last: {shortened(last)}")
        await self._begin(self._client.session(continued_session, history=found.messages, **self._options))

    async def close(self) -> None:
        """Leave; a run that is under way, or on its way to the brokers, is cancelled."""
        # First: a request whose acknowledgement was still to come found a client that was closed, and its run went on.
        if self._answering is not None:
            self._answering.cancel()
            await asyncio.wait([self._answering])
        await self._talking.aclose()
        await self._stack.aclose()

    async def new(self) -> None:
        """A session that knows nothing of this one."""
        await self._talking.aclose()
        self._run = None
        await self._begin(self._client.session(**self._options))

    async def _begin(self, session: AgentSession) -> None:
        self.session = await self._talking.enter_async_context(session)

    async def answer(self, text: str) -> bool:
        """Say it, and show the answer. Whether it was answered."""
        self._stopping = False
        self._answering = asyncio.current_task()
        try:
            result = await self._answered(text)
        except RunTimeout as error:
            self._screen.note(f"{error}; it goes on, and your next message waits for it", "red")
        except RequestRefused as error:
            advice = "; /new begins a conversation without what was said here" if self._manner.interactive else ""
            self._screen.note(f"{error}{advice}", "red")
        except ClientError as error:
            self._screen.note(str(error), "red")
        else:
            self._show(result)
            return result.status == "completed"
        finally:
            self._answering = None
        return False

    async def _answered(self, text: str) -> InvokeResult:
        connection = self._where.cluster.connection
        say = lambda line: self._screen.note(line, "yellow")  # noqa: E731
        # Sending to brokers that have died takes minutes: nobody said why.
        async with watching(BrokerSilence(asyncio.get_running_loop().time()), connection, say):
            run = await self.session.send(text, timeout=self._manner.timeout)
        self._run = run
        if self._stopping:
            await self.stop()
        silence = silence_of(self._options)
        async with watching(silence, connection, say):
            result = await follow(run, self._screen, silence, as_json=False)
        await self.session.settle()
        return result

    async def stop(self) -> None:
        """Cancel the run whose answer is shown or waited for; what it says until then stays."""
        if self._run is None or self._run.over:
            self._stopping = True  # the next one is being sent: `answer` comes by here
            return
        self._stopped = self._run.run_id
        try:
            async with asyncio.timeout(CANCEL_SECONDS):
                await self._run.cancel("stopped at its terminal", requested_by=whoever())
        except (ClientError, TimeoutError) as error:
            self._screen.note(f"it could not be stopped: {str(error) or 'no answer'}", "red")

    def _show(self, result: InvokeResult) -> None:
        if result.status == "completed" and not self._screen.for_people:
            self._screen.out(result.text)
        if result.status == "cancelled" and result.run_id == self._stopped:
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


class Chat:
    """What is typed, and what becomes of it."""

    def __init__(self, loop: LoopThread, conversation: Conversation, prompt: Prompt, screen: Screen) -> None:
        self._loop = loop
        self._conversation = conversation
        self._prompt = prompt
        self._screen = screen

    def talk(self) -> int:
        """Until the user leaves. OK if everything was answered."""
        if self._prompt.interactive:
            self._screen.note(f"{self._conversation.described()} · /help says what can be typed")
        code = OK
        while True:
            try:
                text = self._prompt.ask()
                if text is None or text.strip() in ("/exit", "/quit"):
                    break
                if text.strip() and not self._dealt_with(text):
                    code = FAILED
            except KeyboardInterrupt:
                if not self._prompt.interactive:
                    raise
                self._screen.note("\nCtrl-D or /exit leaves")
        if self._prompt.interactive and self._conversation.session.history:
            self._screen.note(f"agentstream chat --continue {self._conversation.session.session_id}  # goes on here")
        return code

    def _dealt_with(self, text: str) -> bool:
        """Do what it says, or have it answered. False: it was neither a command of the chat's nor answered."""
        if not text.startswith("/"):
            return self._answer(text.strip())
        match text.strip():
            case "/help":
                for line in _HELP:
                    self._screen.note(line)
            case "/session":
                self._screen.note(self._conversation.described())
            case "/new":
                self._loop.start(self._conversation.new()).result()
                self._screen.note(self._conversation.described())
            case _:
                self._screen.note(f"{shortened(text)}: there is no such command; /help lists them", "red")
                return False
        return True

    def _answer(self, text: str) -> bool:
        answer = self._loop.start(self._conversation.answer(text))
        stopped = False
        while True:
            try:
                return answer.result()
            except CancelledError:
                self._screen.note("not waited for; your next message waits until it has ended", "yellow")
                return False
            except KeyboardInterrupt:
                if not self._prompt.interactive:
                    raise
                if stopped:
                    answer.cancel()
                else:
                    self._loop.start(self._conversation.stop())
                stopped = True
