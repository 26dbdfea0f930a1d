"""The dialect: OpenAI's chat completions, in and out."""

import json
import re
from collections.abc import Iterator

from pydantic import JsonValue

from agentstream.infra.offline_model.script import Conversation, JsonObject, Reply, Tokens, Turn

_WORDS = re.compile(r"\S+\s*|\s+")
_CHUNK_CHARS = 16_384
DONE = "[DONE]"


def parse_conversation(body: JsonObject) -> Conversation:
    """What the request's body holds. Raises ValueError if it is no chat completion."""
    messages, tools = body.get("messages"), body.get("tools", [])
    if not isinstance(messages, list) or not isinstance(tools, list):
        raise ValueError("messages and tools must be lists")
    turns = [Turn(role=str(m.get("role")), text=_text(m.get("content"))) for m in messages if isinstance(m, dict)]
    names = [tool.get("function") for tool in tools if isinstance(tool, dict)]
    return Conversation(
        model=str(body.get("model", "offline")),
        system="\n".join(turn.text for turn in turns if turn.role in ("system", "developer")),
        turns=tuple(turn for turn in turns if turn.role not in ("system", "developer")),
        tools=frozenset(
            str(function["name"]) for function in names if isinstance(function, dict) and "name" in function
        ),
    )


def _text(content: JsonValue) -> str:
    if isinstance(content, str):
        return content
    parts = content if isinstance(content, list) else []
    return "".join(str(part.get("text", "")) for part in parts if isinstance(part, dict))


def words(text: str) -> list[str]:
    """Pieces as a model streams them: words with the space behind them; a huge text in larger pieces."""
    if len(text) > 50 * _CHUNK_CHARS:
        return [text[start : start + _CHUNK_CHARS] for start in range(0, len(text), _CHUNK_CHARS)]
    return _WORDS.findall(text)


def finish_reason(reply: Reply) -> str:
    """Why the model stopped."""
    return reply.finish_reason or ("tool_calls" if reply.tool_calls else "stop")


def chunks(reply: Reply, *, model: str, call_id: str, tokens: Tokens) -> Iterator[str]:
    """The reply as JSON documents for `data:` lines, without the closing `[DONE]`."""
    head: JsonObject = {"id": f"chatcmpl-{call_id}", "object": "chat.completion.chunk", "created": 0, "model": model}

    def chunk(delta: JsonObject, reason: str | None = None) -> str:
        return json.dumps({**head, "choices": [{"index": 0, "delta": delta, "finish_reason": reason}]})

    yield chunk({"role": "assistant", "content": ""})
    for word in words(reply.reasoning):
        yield chunk({"reasoning_content": word})
    for word in words(reply.text):
        yield chunk({"content": word})
    for index, call in enumerate(reply.tool_calls):
        arguments = json.dumps(call.arguments)
        half = len(arguments) // 2
        named: JsonObject = {"name": call.name, "arguments": arguments[:half]}
        yield chunk(
            {"tool_calls": [{"index": index, "id": f"call-{call_id}-{index}", "type": "function", "function": named}]}
        )
        yield chunk({"tool_calls": [{"index": index, "function": {"arguments": arguments[half:]}}]})
    yield chunk({}, finish_reason(reply))
    yield json.dumps({**head, "choices": [], "usage": usage(tokens)})


def usage(tokens: Tokens) -> JsonObject:
    """Tokens in the dialect's words."""
    return {
        "prompt_tokens": tokens.prompt,
        "completion_tokens": tokens.completion,
        "total_tokens": tokens.prompt + tokens.completion,
        "prompt_tokens_details": {"cached_tokens": tokens.cached},
    }


def whole(reply: Reply, *, model: str, call_id: str, tokens: Tokens) -> JsonObject:
    """The reply for a caller that does not stream."""
    calls: list[JsonValue] = [
        {
            "id": f"call-{call_id}-{index}",
            "type": "function",
            "function": {"name": call.name, "arguments": json.dumps(call.arguments)},
        }
        for index, call in enumerate(reply.tool_calls)
    ]
    message: JsonObject = {"role": "assistant", "content": reply.text, **({"tool_calls": calls} if calls else {})}
    choice: JsonObject = {"index": 0, "message": message, "finish_reason": finish_reason(reply)}
    head: JsonObject = {"id": f"chatcmpl-{call_id}", "object": "chat.completion", "created": 0, "model": model}
    return {**head, "choices": [choice], "usage": usage(tokens)}


def error_body(message: str, kind: str) -> JsonObject:
    """An error as OpenAI words it."""
    return {"error": {"message": message, "type": kind, "code": kind}}
