"""The same client for scripts and notebooks: nothing to await.

    with SyncAgentClient("localhost:9092") as client:
        print(client.invoke("hi").text)
        with client.stream("hi", session_id="s1") as run:
            for event in run:
                …
            result = run.result()
        with client.session("s1") as session:
            run = session.send("My name is Ada.")
            result = run.result()

Each call is done by an `AgentClient` on an event loop of its own, in a thread that lives as long as the `with` block:
it works where a loop is running already, as in a notebook. Any number of threads may share one client. Everything takes
and raises what it does there. Ctrl-C ends a wait at once, and leaving the blocks then ends the rest; who still waits
in another thread when the client is closed gets concurrent.futures.CancelledError.
"""

from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping
from contextlib import AbstractAsyncContextManager, ExitStack, contextmanager
from functools import partial
from types import TracebackType
from typing import Self, TypedDict, TypeVar, Unpack

from anyio.from_thread import BlockingPortal, start_blocking_portal
from opentelemetry.trace import Tracer

from agentstream.consumers.client.buffer import Voided
from agentstream.consumers.client.client import AgentClient
from agentstream.consumers.client.errors import ClientNotOpen
from agentstream.consumers.client.recorded import RecordedHistory
from agentstream.consumers.client.requests import Content, RequestOptions, TurnOptions
from agentstream.consumers.client.run import Run
from agentstream.consumers.client.session import AgentSession, Turn
from agentstream.consumers.client.submitted import SubmittedRun
from agentstream.consumers.transcript import Transcript
from agentstream.producers.connection import KafkaConnection
from agentstream.schemas.events import ReadEvent
from agentstream.schemas.messages import Message
from agentstream.schemas.results import InvokeResult

T = TypeVar("T")
Entered = TypeVar("Entered")


class ClientOptions(TypedDict, total=False):
    """What `AgentClient` takes besides the servers."""

    connection: KafkaConnection
    topic_prefix: str
    max_request_bytes: int
    max_buffered_bytes: int
    tracer: Tracer


class SyncRun:
    """A run that is followed: `for` gives its events. See `Run`."""

    def __init__(self, run: Run, portal: BlockingPortal) -> None:
        self._run = run
        self._portal = portal

    @property
    def submitted(self) -> SubmittedRun:
        """What `wait` and `follow` take."""
        return self._run.submitted

    @property
    def run_id(self) -> str:
        """The run's id."""
        return self._run.run_id

    @property
    def session_id(self) -> str:
        """The run's session."""
        return self._run.session_id

    @property
    def trace_id(self) -> str:
        """The trace that everything about this run belongs to."""
        return self._run.trace_id

    @property
    def transcript(self) -> Transcript:
        """The messages as far as they are written."""
        return self._run.transcript

    @property
    def lagged(self) -> bool:
        """Whether iteration was too slow and gives no more deltas."""
        return self._run.lagged

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> ReadEvent | Voided:
        # StopAsyncIteration cannot be the result of a future: the portal would wrap it.
        found = _call(self._portal, partial(_next_of, self._run))
        if found is None:
            raise StopIteration
        return found

    def result(self) -> InvokeResult:
        """The result, whatever its status."""
        return _call(self._portal, self._run.result)

    def cancel(self, reason: str | None = None, *, requested_by: str | None = None) -> None:
        """Ask for the run to end; returns once the brokers hold that."""
        _call(self._portal, partial(self._run.cancel, reason, requested_by=requested_by))


class SyncAgentSession:
    """One conversation, made by `SyncAgentClient.session`. See `AgentSession`."""

    def __init__(self, session: AgentSession, portal: BlockingPortal) -> None:
        self._session = session
        self._portal = portal

    @property
    def session_id(self) -> str:
        """The session."""
        return self._session.session_id

    @property
    def history(self) -> tuple[Message, ...]:
        """The conversation: what the next turn is asked with."""
        return self._session.history

    def send(
        self, content: Turn, *, timeout: float | None = None, run_id: str | None = None, **options: Unpack[TurnOptions]
    ) -> SyncRun:
        """Ask, with the whole conversation before it; returns once the brokers hold the request."""
        sending = partial(self._session.send, content, timeout=timeout, run_id=run_id, **options)
        return SyncRun(_call(self._portal, sending), self._portal)

    def settle(self, *, timeout: float | None = None) -> InvokeResult | None:
        """Wait for the run under way and take its turn into the history. None if there is none."""
        return _call(self._portal, partial(self._session.settle, timeout=timeout))


class SyncAgentClient:
    """Runs agents through Kafka. Opened and closed by `with`. See `AgentClient`, whose methods these are."""

    def __init__(self, bootstrap_servers: str | None = None, **options: Unpack[ClientOptions]) -> None:
        self._client = AgentClient(bootstrap_servers, **options)
        self._stack = ExitStack()
        self._opened: BlockingPortal | None = None

    def __enter__(self) -> Self:
        with ExitStack() as opening:
            portal = opening.enter_context(start_blocking_portal(name="agentstream client"))
            # Else closing would wait for threads that wait: for a run of an hour, an hour.
            opening.callback(portal.call, portal.stop, True)
            opening.enter_context(portal.wrap_async_context_manager(self._client))
            self._stack, self._opened = opening.pop_all(), portal
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._opened = None
        self._stack.__exit__(kind, error, trace)

    def invoke(
        self, content: Content, *, timeout: float | None = None, check: bool = False, **options: Unpack[RequestOptions]
    ) -> InvokeResult:
        """Send a request and wait for its result. With `check` a run that did not complete raises RunFailed."""
        return _call(self._portal, partial(self._client.invoke, content, timeout=timeout, check=check, **options))

    def submit(self, content: Content, **options: Unpack[RequestOptions]) -> SubmittedRun:
        """Send a request and return once the brokers hold it."""
        return _call(self._portal, partial(self._client.submit, content, **options))

    def wait(self, submitted: SubmittedRun, *, timeout: float | None = None, check: bool = False) -> InvokeResult:
        """The result of a request that was sent before, by whomever."""
        return _call(self._portal, partial(self._client.wait, submitted, timeout=timeout, check=check))

    @contextmanager
    def stream(
        self,
        content: Content,
        *,
        timeout: float | None = None,
        cancel_on_exit: bool = True,
        **options: Unpack[RequestOptions],
    ) -> Iterator[SyncRun]:
        """Send a request and follow its run. Leaving the block before the result came, however, cancels the run."""
        with self._entered(
            partial(self._client.stream, content, timeout=timeout, cancel_on_exit=cancel_on_exit, **options)
        ) as run:
            yield SyncRun(run, self._portal)

    @contextmanager
    def follow(self, submitted: SubmittedRun, *, timeout: float | None = None) -> Iterator[SyncRun]:
        """Follow a run that was sent before, by whomever, from its first event that is still on the log."""
        with self._entered(partial(self._client.follow, submitted, timeout=timeout)) as run:
            yield SyncRun(run, self._portal)

    @contextmanager
    def session(
        self,
        session_id: str | None = None,
        *,
        history: Iterable[Message | Mapping[str, object]] = (),
        **options: Unpack[TurnOptions],
    ) -> Iterator[SyncAgentSession]:
        """A conversation that keeps its history and sends it with each turn. Leaving it cancels a run under way."""
        with self._entered(partial(self._client.session, session_id, history=history, **options)) as session:
            yield SyncAgentSession(session, self._portal)

    def history(
        self, session_id: str, *, lost_is_fine: bool = False, progress: Callable[[str], None] = lambda _line: None
    ) -> RecordedHistory:
        """The conversation of a session as the log tells it. `progress` is called from the client's thread."""
        asking = partial(self._client.history, session_id, lost_is_fine=lost_is_fine, progress=progress)
        return _call(self._portal, asking)

    def cancel(self, run_id: str, reason: str | None = None, *, requested_by: str | None = None) -> None:
        """Ask for a run to end, whoever sent it and wherever it is; returns once the brokers hold that."""
        _call(self._portal, partial(self._client.cancel, run_id, reason, requested_by=requested_by))

    @property
    def _portal(self) -> BlockingPortal:
        if self._opened is None:
            raise ClientNotOpen("with SyncAgentClient")
        return self._opened

    @contextmanager
    def _entered(self, make: Callable[[], AbstractAsyncContextManager[Entered]]) -> Iterator[Entered]:
        with self._portal.wrap_async_context_manager(make()) as entered:
            yield entered


async def _next_of(run: Run) -> ReadEvent | Voided | None:
    return await anext(run, None)


def _call(portal: BlockingPortal, function: Callable[[], Awaitable[T]]) -> T:
    """Have it done on the client's loop. A wait that is interrupted here ends there as well."""
    future = portal.start_task_soon(function)
    try:
        return future.result()
    except BaseException:
        future.cancel()
        raise
