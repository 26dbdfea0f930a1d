"""Tools of Pi's runs that are answered in Python."""

import asyncio
import json
import logging
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Protocol

from pydantic import JsonValue

from agentstream.consumers.harness.pi_protocol import ToolCallLine, ToolResultLine
from agentstream.consumers.harness.port import AnswerTool
from agentstream.consumers.harness.sidecar_link import LineTooLong

logger = logging.getLogger(__name__)


class ToolFailed(Exception):
    """Raised by a tool for its model to read."""


@dataclass(frozen=True, kw_only=True, slots=True)
class PythonTool:
    """A tool that the worker answers."""

    name: str
    """What requests and models call it."""
    description: str
    """What the model reads about it."""
    parameters: Mapping[str, JsonValue]
    """JSON Schema of its arguments; Pi answers a model that breaks it."""
    call: Callable[[JsonValue], Awaitable[str]]
    """Answers a call. May raise ToolFailed; cancelled when the run ends."""


class AnswerLink(Protocol):
    """Where answers go."""

    async def send(self, line: ToolResultLine) -> None:
        """Send it. Raises LineTooLong; a sidecar that is gone is no error."""
        ...


class ToolCalls:
    """The calls of one run, each in a task; `close` ends them. `answer` goes before any tool, Python's or Pi's."""

    def __init__(
        self, link: AnswerLink, run: str, tools: Mapping[str, PythonTool], answer: AnswerTool | None = None
    ) -> None:
        self._link = link
        self._run = run
        self._tools = tools
        self._answer_tool = answer
        self._tasks: set[asyncio.Task[None]] = set()

    def start(self, call: ToolCallLine) -> None:
        """Answer it in the background."""
        task = asyncio.create_task(self._answer(call), name=f"tool-{call.tool_name}")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def close(self) -> None:
        """Cancel what is not answered."""
        tasks = tuple(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _answer(self, call: ToolCallLine) -> None:
        line = await self._line(call)
        try:
            await self._link.send(line)
        except LineTooLong as error:
            await self._link.send(line.model_copy(update={"content": str(error), "is_error": True}))

    async def _line(self, call: ToolCallLine) -> ToolResultLine:
        line = ToolResultLine(run=self._run, tool_call_id=call.tool_call_id, content="")
        if self._answer_tool is not None:
            said = await self._answer_tool(call.tool_name, call.arguments)
            if said is not None:
                return line.model_copy(update={"content": _text(said.content), "is_error": said.is_error})
            if call.tool_name not in self._tools:
                return line.model_copy(update={"run_tool": True})
        content, is_error = await self._content(call)
        return line.model_copy(update={"content": content, "is_error": is_error})

    async def _content(self, call: ToolCallLine) -> tuple[str, bool]:
        tool = self._tools.get(call.tool_name)
        if tool is None:
            return f"no tool named {call.tool_name}", True
        try:
            return await tool.call(call.arguments), False
        except ToolFailed as error:
            return str(error), True
        except Exception:
            # The model reads that it failed, not what our exceptions say.
            logger.exception("the tool %s failed", call.tool_name)
            return "the tool failed", True


def _text(content: JsonValue) -> str:
    return content if isinstance(content, str) else json.dumps(content, ensure_ascii=False)
