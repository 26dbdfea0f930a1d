"""Runs that a chat leaves: their follower cancels nothing silently, what is to end is asked for here, and said."""

import asyncio
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from typing import Unpack

from agentstream.consumers.client import AgentClient, ClientError, Run, SubmittedRun
from agentstream.consumers.client.requests import Content, RequestOptions, prepare
from agentstream.infra.cli.answering import CANCEL_SECONDS
from agentstream.infra.cli.cancelling import whoever
from agentstream.infra.cli.screen import Screen
from agentstream.schemas.results import InvokeResult


class RunsGoOn:
    """The client as a session of a chat uses it: a run that is not followed any more goes on, until it is cancelled."""

    def __init__(self, client: AgentClient, is_sent: Callable[[str], None]) -> None:
        """`is_sent` is given the id of each run before its request is sent."""
        self._client = client
        self._is_sent = is_sent

    def stream(
        self, content: Content, *, timeout: float | None = None, **options: Unpack[RequestOptions]
    ) -> AbstractAsyncContextManager[Run]:
        """See `AgentClient.stream`."""
        prepared = prepare(content, options)
        self._is_sent(prepared.run_id)
        return self._client.stream(prepared, timeout=timeout, cancel_on_exit=False)

    async def wait(self, submitted: SubmittedRun, *, timeout: float | None = None) -> InvokeResult:
        """See `AgentClient.wait`."""
        return await self._client.wait(submitted, timeout=timeout)


class Cancellations:
    """Requests to cancel, each in a task of its own: who asks for one need not wait for it."""

    def __init__(self, screen: Screen) -> None:
        self._screen = screen
        self._client: AgentClient
        self._asked: dict[str, asyncio.Task[str | None]] = {}

    def open(self, client: AgentClient) -> None:
        """Ask through this client, which is open until `finish` has returned."""
        self._client = client

    def start(self, run_id: str) -> None:
        """Ask for a run to end, unless that is under way or done."""
        asked = self._asked.get(run_id)
        if asked is None or (asked.done() and asked.result() is not None):
            self._asked[run_id] = asyncio.create_task(self._ask(run_id), name=f"cancel {run_id}")

    async def failure(self, run_id: str) -> str | None:
        """Ask, and wait for it: why it failed, None: it did not. Whoever is cancelled in here ends only the wait."""
        self.start(run_id)
        return await asyncio.shield(self._asked[run_id])

    def forget(self, run_id: str) -> None:
        """A run that has ended: whether it could be cancelled is of no interest any more."""
        self._asked.pop(run_id, None)

    @property
    def pending(self) -> list[str]:
        """The runs of which it is not known that they are cancelled."""
        return [run_id for run_id, asked in self._asked.items() if not asked.done() or asked.result() is not None]

    async def finish(self) -> None:
        """Wait for what is under way, ask once more for what failed, and say what became of each."""
        runs = self.pending
        if not runs:
            return
        self._screen.note("cancelling …")
        for run_id, why in zip(runs, await asyncio.gather(*map(self.failure, runs)), strict=True):
            if why is None:
                self._screen.note(f"run {run_id} is cancelled", "yellow")
            else:
                self._screen.note(f"run {run_id} could not be cancelled and goes on: {why}", "red")

    async def _ask(self, run_id: str) -> str | None:
        try:
            async with asyncio.timeout(CANCEL_SECONDS):
                await self._client.cancel(run_id, "stopped at its terminal", requested_by=whoever())
        except (ClientError, TimeoutError) as error:
            return str(error) or "no answer"
        return None
