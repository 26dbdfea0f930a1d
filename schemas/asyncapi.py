"""An AsyncAPI 3.1 document of the whole interface, generated from the models, the topic table and the headers."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from pydantic import JsonValue

from agentstream.schemas.examples import EXAMPLES
from agentstream.schemas.headers import (
    CANCEL_RUN,
    EVALUATION,
    FINISHED_RUN,
    INVOKE_REQUEST,
    INVOKE_RESULT,
    STREAM_EVENTS,
    TRACE_TARGET,
)
from agentstream.schemas.json_schema import CONSTANT_DEFAULTS, WIRE_MODELS, Schema, components, short_name
from agentstream.schemas.topics import TopicPlan, Topics

WIRE_VERSION: Final = "1.0.0"
_DEAD_LETTER: Final = "dead-letter"
_SESSION_KEY: Final = "The session id: Kafka's default murmur2 partitioner keeps a session in order."


@dataclass(frozen=True, kw_only=True, slots=True)
class _Channel:
    """One topic, as the worker sees it."""

    name: str
    """The channel's name in the document."""
    message: str
    """`ce_type` of what is on it, or `dead-letter`."""
    action: str
    """`receive` or `send`."""
    key: str
    """What the record's key is."""
    summary: str
    """What happens on it."""


_CHANNELS: Final = (
    _Channel(
        name="invokeRequests",
        message=INVOKE_REQUEST,
        action="receive",
        key=_SESSION_KEY,
        summary="Callers ask for runs.",
    ),
    _Channel(
        name="control",
        message=CANCEL_RUN,
        action="receive",
        key="The session id or the run id.",
        summary="Callers cancel runs; every worker reads every record.",
    ),
    _Channel(
        name="streamDeltas",
        message=STREAM_EVENTS,
        action="send",
        key=_SESSION_KEY,
        summary="Live events of runs: keep the greatest (claim, attempt); the result names the one that counts.",
    ),
    _Channel(
        name="assistantMessages",
        message=INVOKE_RESULT,
        action="send",
        key=_SESSION_KEY,
        summary="Exactly one result per request; read it with isolation.level=read_committed.",
    ),
    _Channel(
        name="finishedRuns",
        message=FINISHED_RUN,
        action="send",
        key="The run id.",
        summary="The workers' index of finished runs.",
    ),
    _Channel(
        name="evaluations",
        message=EVALUATION,
        action="send",
        key=_SESSION_KEY,
        summary="What evaluators said of replayed runs; written by `agentstream compare --publish`, not by workers.",
    ),
    _Channel(
        name="deadLetters",
        message=_DEAD_LETTER,
        action="send",
        key="The original key.",
        summary="Records that could not be decoded, admitted or finished, byte for byte.",
    ),
)


def asyncapi(
    topics: Topics | None = None,
    *,
    effective: Mapping[str, JsonValue] = CONSTANT_DEFAULTS,
    partitions: int | None = None,
) -> Schema:
    """The document. Operations are the worker's: what it receives, callers send.

    `effective`: defaults as they would take effect, by the names of `AgentParameters`; `partitions`: shown where known.
    """
    topics = topics or Topics()
    plans = {plan.name: plan for plan in topics.plan(partitions or 1)}
    addresses = (
        topics.invoke_requests,
        topics.control,
        topics.stream_deltas,
        topics.assistant_messages,
        topics.finished_runs,
        topics.evaluations,
        topics.dead_letters,
    )
    shown = {topics.control} if partitions is None else set(plans)
    return {
        "asyncapi": "3.1.0",
        "info": {
            "title": "agentstream",
            "version": WIRE_VERSION,
            "description": "Run AI agents from Kafka: requests in, live events and exactly one result per request out.",
            "license": {"name": "Apache-2.0"},
        },
        "defaultContentType": "application/json",
        "channels": {
            channel.name: _channel(channel, plans[address], with_partitions=address in shown)
            for channel, address in zip(_CHANNELS, addresses, strict=True)
        },
        "operations": {_operation_name(channel): _operation(channel) for channel in _CHANNELS},
        "components": {
            "schemas": {**components(effective)},
            "messages": {_message_name(channel): _message(channel) for channel in _CHANNELS},
            "correlationIds": {
                "run": {
                    "description": "The run id joins everything that comes of a request.",
                    "location": "$message.header#/ce_subject",
                }
            },
        },
    }


def _channel(channel: _Channel, plan: TopicPlan, *, with_partitions: bool) -> Schema:
    kafka: Schema = {
        "topic": plan.name,
        "topicConfiguration": {
            "cleanup.policy": ["delete"],
            "retention.ms": plan.retention_ms,
            "max.message.bytes": plan.max_message_bytes,
        },
        "bindingVersion": "0.5.0",
    }
    if with_partitions:
        kafka["partitions"] = plan.partitions
    name = _message_name(channel)
    return {
        "address": plan.name,
        "summary": channel.summary,
        "messages": {name: {"$ref": f"#/components/messages/{name}"}},
        "bindings": {"kafka": kafka},
    }


def _operation_name(channel: _Channel) -> str:
    return f"{channel.action}{_message_name(channel)}"


def _message_name(channel: _Channel) -> str:
    name = channel.message if channel.message == _DEAD_LETTER else short_name(channel.message)
    return "".join(word.capitalize() for word in name.split("-"))


def _operation(channel: _Channel) -> Schema:
    operation: Schema = {
        "action": channel.action,
        "channel": {"$ref": f"#/channels/{channel.name}"},
        "summary": channel.summary,
        "messages": [{"$ref": f"#/channels/{channel.name}/messages/{_message_name(channel)}"}],
    }
    if channel.message == INVOKE_REQUEST:
        operation["reply"] = {
            "channel": {"$ref": "#/channels/assistantMessages"},
            "messages": [{"$ref": "#/channels/assistantMessages/messages/InvokeResult"}],
        }
    return operation


def _message(channel: _Channel) -> Schema:
    message: Schema = {
        "name": channel.message,
        "title": _message_name(channel),
        "summary": channel.summary,
        "headers": _headers(channel.message),
        "correlationId": {"$ref": "#/components/correlationIds/run"},
        "bindings": {"kafka": {"key": {"type": "string", "description": channel.key}, "bindingVersion": "0.5.0"}},
    }
    if channel.message == _DEAD_LETTER:
        payload: Schema = {"description": "The original bytes, whatever they are."}
        return message | {"contentType": "application/octet-stream", "payload": payload}
    model, _ = WIRE_MODELS[channel.message]
    message["contentType"] = "application/json"
    message["payload"] = {"$ref": f"#/components/schemas/{model.__name__}"}
    message["examples"] = [
        {"name": name, "payload": payload} for name, payload in EXAMPLES[short_name(channel.message)].items()
    ]
    return message


_TEXT: Final[Mapping[str, str]] = {
    "ce_specversion": "CloudEvents' version, 1.0.",
    "ce_id": "Unique id of the record; on a request without `id` it is the run id.",
    "ce_source": "Who wrote it.",
    "ce_type": "What it is.",
    "ce_time": "When it was written.",
    "ce_subject": "The run id.",
    "ce_sequence": "`seq` of the first event.",
    "ce_correlationid": "The run id.",
    "ce_causationid": "The id of what caused it: the run id.",
    "content-type": "The value's media type.",
    "traceparent": "W3C trace context: the parent of everything that comes of it.",
    "tracestate": "W3C trace state, carried on.",
    "baggage": "W3C baggage, carried on.",
    TRACE_TARGET: "Name of a place in the worker's settings that the run's spans are exported to as well.",
    "agentstream-request": "Where the request lies: topic/partition/offset.",
    "dlq-error-code": "Why it is here: one of the table of codes.",
    "dlq-error-stage": "Where on the path the error arose.",
    "dlq-retriable": "Whether the same record may succeed if sent again: true or false.",
    "dlq-truncated": "The value was too large to copy and is empty here.",
    "__dlq.errors.topic": "The original record's topic.",
    "__dlq.errors.partition": "The original record's partition.",
    "__dlq.errors.offset": "The original record's offset.",
    "__dlq.errors.group": "The worker's consumer group.",
    "__dlq.errors.message": "The problem's detail.",
    "__dlq.errors.delivery.count": "How often the record was delivered.",
}
_SHORT = ("ce_specversion", "ce_id", "ce_source", "ce_type", "ce_subject", "ce_sequence", "traceparent")
_FULL = ("ce_specversion", "ce_id", "ce_source", "ce_type", "ce_time", "ce_subject", "ce_correlationid", "content-type")


def _headers(message: str) -> Schema:
    """Headers of a message. On input every header is optional."""
    if message == _DEAD_LETTER:
        names = [name for name in _TEXT if "dlq" in name]
        required = [name for name in names if name != "dlq-truncated"]
    elif message == STREAM_EVENTS:
        names, required = [*_SHORT, "tracestate", "baggage"], [*_SHORT]
    else:
        caused = message in {INVOKE_RESULT, FINISHED_RUN}
        extra = ("ce_causationid", "agentstream-request") if caused else ()
        names = [*_FULL, "traceparent", "tracestate", "baggage", *extra]
        if message == INVOKE_REQUEST:
            names.append(TRACE_TARGET)
        required = [*_FULL, "traceparent", *extra] if caused else []
    properties: Schema = {name: {"type": "string", "description": _TEXT[name]} for name in names}
    if "ce_type" in properties:
        properties["ce_type"] = {"type": "string", "const": message, "description": _TEXT["ce_type"]}
    schema: Schema = {"type": "object", "properties": properties}
    return schema | {"required": [*required]} if required else schema
