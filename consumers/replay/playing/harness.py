"""Any harness, played against tapes: to the runs code around it, it is that harness."""

import asyncio
import contextlib
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import aclosing
from dataclasses import replace
from typing import Final

from pydantic import JsonValue

from agentstream.consumers.harness.port import (
    Credentials,
    Failed,
    Finished,
    Harness,
    HarnessEvent,
    HarnessRequest,
    Terminal,
    Waiting,
)
from agentstream.consumers.replay.playing.playback import Left, Playback, Playbacks
from agentstream.consumers.replay.playing.tape import failed_step
from agentstream.schemas.errors import ErrorCode, error_rule
from agentstream.schemas.events import MessageEnded, ToolStarted, TurnEnded
from agentstream.schemas.messages import Usage

PROVIDER: Final = "playback"
ASKS_FIRST: Final = frozenset({"pi", "pi-http", "scripted"})
"""Harnesses that honour `HarnessRequest.answer_tool`. With any other, tools would really run."""
_IN_LINE: Final = frozenset({"scripted"})
"""Of them, those that ask from within their own generator."""
PLAYED: Final = _IN_LINE
"""Harnesses whose tools are played, and never run."""
READING: Final = frozenset({"read", "grep", "find", "ls"})
"""Tools that change nothing. A live replay runs any other only if its terms name it (`real_tools`)."""
_SAYS_IT_WAITS_S: Final = 0.5


class ReplayHarness:
    """A harness whose runs are answered from recordings, as far as their terms say. Opens and closes nothing.

    `endpoint`: where recorded answers of models are served in OpenAI's dialect; None: frozen runs of a harness that
    calls models fail for want of one. `plays_unknown`: a run that no playback is known of is played as it is. Without,
    it waits for its playback: what a killed replay had sent is delivered to the next one before that asks for it, and
    must not meet real models and tools.
    """

    def __init__(
        self, inner: Harness, playbacks: Playbacks, *, endpoint: str | None = None, plays_unknown: bool = False
    ) -> None:
        self._inner = inner
        self._playbacks = playbacks
        self._endpoint = endpoint
        self._plays_unknown = plays_unknown

    @property
    def kind(self) -> str:
        """The harness's own."""
        return self._inner.kind

    @property
    def versions(self) -> Mapping[str, str]:
        """The harness's own."""
        return self._inner.versions

    def check_options(self, options: Mapping[str, JsonValue]) -> str | None:
        """The harness's own."""
        return self._inner.check_options(options)

    async def health(self) -> str | None:
        """The harness's own."""
        return await self._inner.health()

    async def run(self, request: HarnessRequest) -> AsyncIterator[HarnessEvent | Waiting | Terminal]:
        """Play it. The contract is the port's."""
        playback = self._playbacks.of_run(request.run_id)
        if playback is None and self._plays_unknown:
            async for event in self._inner.run(request):
                yield event
            return
        while playback is None:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_SAYS_IT_WAITS_S):
                    await self._playbacks.another()
            playback = self._playbacks.of_run(request.run_id)
            if playback is None:
                yield Waiting()
        playback.begin()
        playback.in_line = self.kind in _IN_LINE
        async with aclosing(self._watched(self._told(request, playback), playback)) as events:
            async for event in events:
                match event:
                    case Finished() | Failed():
                        yield _judged(event, playback)
                        return
                    case MessageEnded(message=message) if message is not None:
                        playback.saw(message)
                    # Pi tells of a call also where the run has no such tool, and answers that it is not found.
                    case ToolStarted(tool_name=name) if playback.terms.mode == "live" and name in request.tools:
                        playback.real += 1
                    case _:
                        pass
                if playback.divergence is not None:
                    yield event
                    yield _judged(Finished(finish_reason="stop"), playback)
                    return
                yield _as_recorded(event, request)

    def _acting(self, request: HarnessRequest, playback: Playback) -> Failed | None:
        """Why a live run must not begin: it could do something that its replay was not asked for."""
        if playback.terms.mode != "live" or self.kind in PLAYED:
            return None
        refused = [name for name in request.tools if name not in READING and name not in playback.terms.real_tools]
        if not refused:
            return None
        detail = f"{', '.join(refused)} would really run, and this replay does not name them as real tools"
        return Failed(code=ErrorCode.TOOL_NOT_ALLOWED, detail=detail, retriable=False)

    def _told(self, request: HarnessRequest, playback: Playback) -> HarnessRequest:
        """The request as the inner harness gets it."""
        if playback.terms.mode == "live":
            return request
        if self.kind not in ASKS_FIRST:
            raise RuntimeError(f"the harness {self.kind} cannot be played {playback.terms.mode}")
        told = replace(request, answer_tool=playback.answer_tool)
        if not playback.frozen:
            return told
        # A provider that nobody knows: what its models can do, and which oddities of its dialect to mind, is nothing
        # of this replay's. Its name is put right in what the harness says about tokens.
        model = None if request.model is None else f"{PROVIDER}/{request.model.partition('/')[2]}"
        own = Credentials(
            name=PROVIDER,
            provider=PROVIDER,
            api_key=playback.key,
            base_url=self._endpoint or "http://127.0.0.1:9/v1",
            api="openai-completions",
        )
        return replace(told, model=model, credentials=own)

    async def _watched(
        self, request: HarnessRequest, playback: Playback
    ) -> AsyncGenerator[HarnessEvent | Waiting | Terminal, None]:
        """The inner harness's events, until it is to be stopped while it waits for a tool."""
        if (refused := self._acting(request, playback)) is not None:
            yield refused
            return
        if playback.in_line:
            # To wait for either of two took a fifth of a scripted run's time.
            try:
                async for event in self._inner.run(request):
                    yield event
            except Left:
                yield Finished(finish_reason="stop")  # the verdict takes its place
            return
        stopped = asyncio.ensure_future(playback.stopped.wait())
        events = self._inner.run(request)
        coming: asyncio.Future[HarnessEvent | Waiting | Terminal] | None = None
        try:
            while True:
                coming = asyncio.ensure_future(anext(events))
                await asyncio.wait({coming, stopped}, return_when=asyncio.FIRST_COMPLETED)
                if not coming.done():
                    yield Finished(finish_reason="stop")  # the verdict takes its place
                    return
                try:
                    yield coming.result()
                except StopAsyncIteration:
                    return
        finally:
            stopped.cancel()
            if coming is not None and not coming.done():
                coming.cancel()
                await asyncio.wait({coming})
            close = getattr(events, "aclose", None)
            if close is not None:
                await close()


def _judged(terminal: Terminal, playback: Playback) -> Terminal:
    """The end as the recording wants it."""
    if (verdict := playback.verdict) is not None:
        return replace(verdict, cost=terminal.cost)
    if isinstance(terminal, Finished):
        playback.ended({"step": "end", "finish_reason": terminal.finish_reason})
    elif not _tried_again(terminal):
        playback.ended(failed_step(terminal.code))
    verdict = playback.verdict
    return terminal if verdict is None else replace(verdict, cost=terminal.cost)


def _tried_again(failed: Failed) -> bool:
    """Another attempt may go on as recorded; if none does, the result says so."""
    return error_rule(failed.code).retriable if failed.retriable is None else failed.retriable


def _as_recorded(event: HarnessEvent | Waiting, request: HarnessRequest) -> HarnessEvent | Waiting:
    """Tokens are those of the provider that once answered."""
    if isinstance(event, MessageEnded | TurnEnded) and event.usage is not None and event.usage.provider == PROVIDER:
        return event.model_copy(update={"usage": _renamed(event.usage, request.model)})
    return event


def _renamed(usage: Usage, model: str | None) -> Usage:
    return usage.model_copy(update={"provider": (model or PROVIDER).partition("/")[0]})
