"""Serves recorded answers of models on loopback, in OpenAI's dialect: what a frozen replay's harnesses call.

A call's key names its playback, which says what is answered, and whether the conversation is the recorded one.
"""

import asyncio
import itertools
import json

from pydantic import JsonValue

from agentstream.consumers.replay.playing.playback import Playback, Playbacks, Said
from agentstream.consumers.replay.playing.tape import ModelAnswer
from agentstream.infra.offline_model.http import EventStream, HttpRequest, LoopbackServer, write_json
from agentstream.infra.offline_model.script import JsonObject
from agentstream.infra.offline_model.wire import DONE, error_body

_REASONS = {"stop": "stop", "length": "length", "tool_call": "tool_calls", "content_filter": "content_filter"}


class PlaybackEndpoint(LoopbackServer):
    """`async with` opens and closes it; `base_url` is known once it is open. Closing cuts the calls under way."""

    def __init__(self, playbacks: Playbacks) -> None:
        super().__init__()
        self._playbacks = playbacks
        self._ids = itertools.count(1)

    async def _answer(self, request: HttpRequest, writer: asyncio.StreamWriter) -> bool:
        playback = self._playbacks.of_key(request.headers.get("authorization", "").removeprefix("Bearer "))
        if playback is None:
            write_json(writer, 401, error_body("no replay has this key", "invalid_api_key"))
            return True
        body = json.loads(request.body)
        if not isinstance(body, dict):
            raise ValueError("the body must be a JSON object")
        answer = await playback.answer_model(_said(body))
        if answer is None:
            write_json(writer, 400, error_body(_why(playback), "replay"))
            return True
        await self._stream(answer, str(body.get("model", "")), writer)
        return True

    async def _stream(self, answer: ModelAnswer, model: str, writer: asyncio.StreamWriter) -> None:
        usage = answer.usage
        head: JsonObject = {
            "id": f"chatcmpl-{next(self._ids)}",
            "object": "chat.completion.chunk",
            "created": 0,
            "model": model if usage is None else usage.model,
        }
        stream = EventStream(writer)
        for delta in _deltas(answer):
            await stream.send(json.dumps({**head, "choices": [{"index": 0, "delta": delta, "finish_reason": None}]}))
        reason = _REASONS.get(answer.finish_reason, "stop")
        await stream.send(json.dumps({**head, "choices": [{"index": 0, "delta": {}, "finish_reason": reason}]}))
        if usage is not None:
            tokens: JsonObject = {
                "prompt_tokens": usage.input_tokens,
                "completion_tokens": usage.output_tokens,
                "total_tokens": usage.input_tokens + usage.output_tokens,
                "prompt_tokens_details": {"cached_tokens": usage.cached_input_tokens},
            }
            await stream.send(json.dumps({**head, "choices": [], "usage": tokens}))
        await stream.send(DONE)
        await stream.end()


def _why(playback: Playback) -> str:
    verdict = playback.verdict
    return "the recording has no answer" if verdict is None else verdict.detail


def _deltas(answer: ModelAnswer) -> list[JsonObject]:
    deltas: list[JsonObject] = [{"role": "assistant", "content": ""}]
    if answer.reasoning:
        deltas.append({"reasoning_content": answer.reasoning})
    if answer.text:
        deltas.append({"content": answer.text})
    for index, call in enumerate(answer.calls):
        arguments = json.dumps(call.arguments if call.arguments is not None else {}, ensure_ascii=False)
        named: JsonObject = {"name": call.name, "arguments": arguments}
        deltas.append({"tool_calls": [{"index": index, "id": call.id, "type": "function", "function": named}]})
    return deltas


def _said(body: JsonObject) -> list[Said]:
    """The conversation without its instructions. Raises ValueError if it is none."""
    messages = body.get("messages")
    if not isinstance(messages, list):
        raise ValueError("messages must be a list")
    return [
        Said(role=str(each.get("role")), text=_text(each.get("content")), calls=tuple(_calls(each.get("tool_calls"))))
        for each in messages
        if isinstance(each, dict) and each.get("role") not in ("system", "developer")
    ]


def _text(content: JsonValue) -> str:
    if isinstance(content, str):
        return content
    parts = content if isinstance(content, list) else []
    return "".join(str(part.get("text", "")) for part in parts if isinstance(part, dict))


def _calls(calls: JsonValue) -> list[tuple[str, JsonValue]]:
    found: list[tuple[str, JsonValue]] = []
    for call in calls if isinstance(calls, list) else []:
        function = call.get("function") if isinstance(call, dict) else None
        if isinstance(function, dict):
            found.append((str(function.get("name")), json.loads(str(function.get("arguments") or "{}"))))
    return found
