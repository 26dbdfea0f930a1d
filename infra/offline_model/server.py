"""The offline model as a server: answers by the script, plays faults, remembers what it was asked."""

import asyncio
import itertools
import json
import socket
from collections import Counter, deque
from collections.abc import Mapping
from dataclasses import dataclass

from agentstream.infra.offline_model.conversation import plan_conversation
from agentstream.infra.offline_model.directives import parse_directives
from agentstream.infra.offline_model.http import EventStream, HttpRequest, LoopbackServer, write_json
from agentstream.infra.offline_model.script import Conversation, Fault, JsonObject, Plan, Reply, Tokens, estimate_tokens
from agentstream.infra.offline_model.wire import DONE, chunks, error_body, parse_conversation, whole

MAX_CALLS = 1_000
_FOR_EVER = 24 * 3_600


@dataclass(frozen=True, kw_only=True, slots=True)
class Call:
    """One model call as it arrived."""

    headers: Mapping[str, str]
    """Names in lower case."""
    body: JsonObject
    """The request as JSON."""
    conversation: Conversation
    """What the script saw of it."""

    @property
    def api_key(self) -> str:
        """The bearer token; empty if there is none."""
        return self.headers.get("authorization", "").removeprefix("Bearer ")


class OfflineModel(LoopbackServer):
    """An OpenAI-compatible endpoint on loopback.

    `async with` opens and closes it; `base_url` is known once it is open. With `api_keys` given, any other key is
    answered with 401. Closing cuts the calls that are under way.
    """

    def __init__(self, *, port: int = 0, api_keys: frozenset[str] | None = None) -> None:
        super().__init__(port=port)
        self._api_keys = api_keys
        self._failures: Counter[tuple[str, str]] = Counter()
        self._ids = itertools.count(1)
        self.calls: deque[Call] = deque(maxlen=MAX_CALLS)
        """The latest calls, oldest first."""

    async def _answer(self, request: HttpRequest, writer: asyncio.StreamWriter) -> bool:
        """Answers one request; False if the connection cannot be used again."""
        if request.path.rstrip("/").endswith("/chat/completions"):
            return await self._complete(request, writer)
        if request.path.rstrip("/").endswith("/models"):
            write_json(writer, 200, {"object": "list", "data": [{"id": "offline", "object": "model"}]})
        else:
            write_json(
                writer, 404, error_body("this is agentstream's offline model: POST /v1/chat/completions", "not_found")
            )
        return True

    async def _complete(self, request: HttpRequest, writer: asyncio.StreamWriter) -> bool:
        body = json.loads(request.body)
        if not isinstance(body, dict):
            raise ValueError("the body must be a JSON object")  # answered with 400, as all that is misshapen
        conversation = parse_conversation(body)
        call = Call(headers=request.headers, body=body, conversation=conversation)
        self.calls.append(call)
        if self._api_keys is not None and call.api_key not in self._api_keys:
            write_json(writer, 401, error_body("Incorrect API key provided", "invalid_api_key"))
            return True
        plan = parse_directives(conversation.prompt) or plan_conversation(conversation)
        fault = self._due(plan.fault, call)
        if fault is not None and fault.kind not in ("stall", "cut"):
            return await self._fail(fault, writer)
        reply = self._reply(plan, conversation)
        if not body.get("stream"):
            write_json(
                writer,
                200,
                whole(reply, model=conversation.model, call_id=self._id(), tokens=_tokens(plan, call, reply)),
            )
            return True
        return await self._stream(plan, reply, call, fault, writer)

    def _due(self, fault: Fault | None, call: Call) -> Fault | None:
        if fault is None or fault.times is None:
            return fault
        # Counted per prompt and key, so that side-by-side runs do not use up each other's failures.
        key = (call.api_key, call.conversation.prompt)
        self._failures[key] += 1
        return fault if self._failures[key] <= fault.times else None

    async def _fail(self, fault: Fault, writer: asyncio.StreamWriter) -> bool:
        if fault.status is not None:
            headers = {"retry-after": fault.retry_after} if fault.retry_after else {}
            write_json(writer, fault.status, error_body(fault.message, f"scripted_{fault.kind}"), headers)
            return True
        if fault.kind == "hang":
            await asyncio.sleep(_FOR_EVER)
        writer.transport.abort()
        return False

    async def _stream(
        self, plan: Plan, reply: Reply, call: Call, fault: Fault | None, writer: asyncio.StreamWriter
    ) -> bool:
        pieces = list(
            chunks(reply, model=call.conversation.model, call_id=self._id(), tokens=_tokens(plan, call, reply))
        )
        # Half of the words, the role's chunk included, and never the end: a fault in mid-stream needs both sides.
        stop_at = None if fault is None else max(1, (len(pieces) - 2) // 2)
        stream = EventStream(writer)
        for number, piece in enumerate(pieces):
            if number == stop_at:
                return await self._fail(
                    Fault(kind="hang" if fault is not None and fault.kind == "stall" else "cut"), writer
                )
            await stream.send(piece)
            if plan.pace_ms:
                await asyncio.sleep(plan.pace_ms / 1_000)
        await stream.send(DONE)
        await stream.end()
        return True

    def _reply(self, plan: Plan, conversation: Conversation) -> Reply:
        if plan.steps and (plan.loop or conversation.steps_taken < len(plan.steps)):
            return plan.step(conversation.steps_taken)
        return plan_conversation(conversation).steps[-1]

    def _id(self) -> str:
        return str(next(self._ids))


def _tokens(plan: Plan, call: Call, reply: Reply) -> Tokens:
    prompt = call.conversation.system + "".join(turn.text for turn in call.conversation.turns)
    written = reply.text + reply.reasoning + "".join(json.dumps(entry.arguments) for entry in reply.tool_calls)
    return plan.tokens or Tokens(prompt=estimate_tokens(prompt), completion=estimate_tokens(written))


def closed_port() -> int:
    """A port of loopback on which nobody listens: connections are refused."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
