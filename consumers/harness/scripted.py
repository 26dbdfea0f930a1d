"""A harness without a model: it plays what its options say. For tests, demos and benchmarks."""

import asyncio
import contextlib
import os
import re
import signal
from collections.abc import AsyncIterator, Iterable, Mapping
from types import TracebackType
from typing import Final, Self

from pydantic import JsonValue, ValidationError

from agentstream.consumers.harness.port import (
    Failed,
    Finished,
    HarnessEvent,
    HarnessRequest,
    Terminal,
    ToolAnswer,
)
from agentstream.consumers.harness.scripted_options import ScriptedOptions, ScriptedTool
from agentstream.schemas.base import unchecked
from agentstream.schemas.errors import ErrorCode
from agentstream.schemas.events import (
    MessageEnded,
    MessageStarted,
    PartDelta,
    PartEnded,
    PartStarted,
    ToolEnded,
    ToolStarted,
    TurnEnded,
    TurnStarted,
)
from agentstream.schemas.messages import Message, TextPart, ToolCallPart, ToolCallResponsePart

VERSION: Final = "1"
_CHUNK: Final = 1_024
_WORDS: Final = re.compile(r"\S+\s*|\s+")

# The options are checked, and all else is made up here: to check each event again was 4 % of a worker's time.
_turn_started, _turn_ended = unchecked(TurnStarted), unchecked(TurnEnded)
_message_started, _message_ended = unchecked(MessageStarted), unchecked(MessageEnded)
_part_started, _part_delta, _part_ended = unchecked(PartStarted), unchecked(PartDelta), unchecked(PartEnded)
_message, _text_part = unchecked(Message), unchecked(TextPart)


class ScriptedHarness:
    """Plays `ScriptedOptions`: the same options, the same events. Closing it ends runs that ignore cancellation."""

    def __init__(self) -> None:
        self._closing = asyncio.Event()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._closing.set()

    @property
    def kind(self) -> str:
        """`scripted`."""
        return "scripted"

    @property
    def versions(self) -> Mapping[str, str]:
        """The version of the script language."""
        return {"scripted": VERSION}

    def check_options(self, options: Mapping[str, JsonValue]) -> str | None:
        """None, or what is wrong with the options."""
        script = _read(options)
        return script if isinstance(script, str) else None

    async def health(self) -> str | None:
        """None: always ready."""
        return None

    def run(self, request: HarnessRequest) -> AsyncIterator[HarnessEvent | Terminal]:
        """Play the request's options. See the port for what is guaranteed, and the options for what is broken."""
        script = _read(request.choice.options)
        if isinstance(script, str):
            return _refuse(script)
        if script.tools or script.fail_attempts or script.hang == "before_first":
            return self._play(request, script)
        return self._text_turn(request, script, 1)

    async def _play(self, request: HarnessRequest, script: ScriptedOptions) -> AsyncIterator[HarnessEvent | Terminal]:
        if script.hang == "before_first":
            await self._hang()
        if request.attempt <= script.fail_attempts:
            yield TurnStarted(turn=1)
            yield Failed(code=ErrorCode.PROVIDER_ERROR, detail=f"attempt {request.attempt} fails as scripted")
            return
        for turn, tool in enumerate(script.tools, 1):
            if turn > request.limits.max_turns:
                yield _too_many_turns(request)
                return
            async for event in self._tool_turn(request, script, turn, tool):
                yield event
        if len(script.tools) >= request.limits.max_turns:
            yield _too_many_turns(request)
            return
        async for last in self._text_turn(request, script, len(script.tools) + 1):
            yield last

    async def _tool_turn(
        self, request: HarnessRequest, script: ScriptedOptions, turn: int, tool: ScriptedTool
    ) -> AsyncIterator[HarnessEvent]:
        message_id, call_id = f"{request.attempt_id}-{turn}", f"call-{turn}"
        call = ToolCallPart(id=call_id, name=tool.name, arguments=tool.arguments)
        yield TurnStarted(turn=turn)
        yield MessageStarted(turn=turn, message_id=message_id)
        yield PartStarted(turn=turn, message_id=message_id, part_index=0, part_type="tool_call")
        yield PartEnded(turn=turn, message_id=message_id, part_index=0, part_type="tool_call", part=call)
        message = Message(role="assistant", parts=(call,))
        yield MessageEnded(turn=turn, message_id=message_id, message=message, finish_reason="tool_call")
        yield ToolStarted(turn=turn, tool_call_id=call_id, tool_name=tool.name, arguments=tool.arguments)
        if script.hang == "in_tool":
            await self._hang()
        if tool.duration_ms:
            await asyncio.sleep(tool.duration_ms / 1000)
        said = None if request.answer_tool is None else await request.answer_tool(tool.name, tool.arguments)
        said = said or ToolAnswer(content=tool.result, is_error=tool.is_error)
        yield ToolEnded(
            turn=turn,
            tool_call_id=call_id,
            tool_name=tool.name,
            content=said.content,
            is_error=said.is_error,
            duration_ms=tool.duration_ms,
        )
        answer = Message(
            role="tool", parts=(ToolCallResponsePart(id=call_id, response=said.content, is_error=said.is_error),)
        )
        yield MessageStarted(turn=turn, message_id=f"{message_id}-tool", role="tool")
        yield MessageEnded(turn=turn, message_id=f"{message_id}-tool", message=answer)
        yield TurnEnded(turn=turn, finish_reason="tool_call")

    async def _text_turn(
        self, request: HarnessRequest, script: ScriptedOptions, turn: int
    ) -> AsyncIterator[HarnessEvent | Terminal]:
        message_id = f"{request.attempt_id}-{turn}"
        yield _turn_started(turn=turn)
        yield _message_started(turn=turn, message_id=message_id)
        yield _part_started(turn=turn, message_id=message_id, part_index=0, part_type="text")
        total, pieces = _pieces(request, script)
        said: list[str] = []
        for piece in pieces:
            if said and script.delay_ms:
                await asyncio.sleep(script.delay_ms / 1000)
            said.append(piece)
            yield _part_delta(turn=turn, message_id=message_id, part_index=0, part_type="text", delta=piece)
            if len(said) == max(total // 2, 1) and (failed := await self._misbehave(script)):
                yield failed
                return
        if not said and (failed := await self._misbehave(script)):
            yield failed
            return
        part = _text_part(content="".join(said))
        message = _message(role="assistant", parts=(part,))
        yield _part_ended(turn=turn, message_id=message_id, part_index=0, part_type="text", part=part)
        yield _message_ended(
            turn=turn, message_id=message_id, message=message, finish_reason="stop", usage=script.usage
        )
        yield _turn_ended(turn=turn, finish_reason="stop", usage=script.usage)
        if not script.no_terminal:
            yield Finished(finish_reason="stop")
        if script.two_terminals:
            yield Finished(finish_reason="stop")

    async def _misbehave(self, script: ScriptedOptions) -> Failed | None:
        """What the script wants in the middle of the answer."""
        match script.hang:
            case "mid_text":
                await self._hang()
            case "ignore_cancel":
                await self._hang_on()
            case _:
                pass
        if script.crash == "worker":
            os.kill(os.getpid(), signal.SIGKILL)
        if script.crash == "adapter":
            return Failed(code=ErrorCode.HARNESS_CRASHED, detail="crashed as scripted")
        if script.raises:
            raise RuntimeError("raised as scripted")
        if script.error is not None:
            return Failed(code=script.error, detail="failed as scripted", retriable=False)
        return None

    async def _hang(self) -> None:
        await asyncio.get_running_loop().create_future()

    async def _hang_on(self) -> None:
        """Breaks the port's promise about cancellation, until the harness is closed: else no loop could ever end."""
        while not self._closing.is_set():
            with contextlib.suppress(asyncio.CancelledError):
                await self._closing.wait()


def _read(options: Mapping[str, JsonValue]) -> ScriptedOptions | str:
    """The script, or what is wrong with it."""
    try:
        return ScriptedOptions.model_validate(options)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        return f"{'.'.join(map(str, first['loc']))}: {first['msg']}"


async def _refuse(wrong: str) -> AsyncIterator[Terminal]:
    yield Failed(code=ErrorCode.SCHEMA_INVALID, detail=wrong)


def _pieces(request: HarnessRequest, script: ScriptedOptions) -> tuple[int, Iterable[str]]:
    """The answer in pieces, and how many they are."""
    if script.output_bytes is not None:
        whole, rest = divmod(script.output_bytes, _CHUNK)
        sizes = [_CHUNK] * whole + ([rest] if rest else [])
        return len(sizes), ("x" * size for size in sizes)
    words = _WORDS.findall(f"You said: {_last_user_text(request)}" if script.text is None else script.text)
    return len(words), words


def _last_user_text(request: HarnessRequest) -> str:
    return next((message.text for message in reversed(request.messages) if message.role == "user"), "nothing")


def _too_many_turns(request: HarnessRequest) -> Failed:
    return Failed(code=ErrorCode.MAX_TURNS, detail=f"the limit is {request.limits.max_turns} turns")
