"""Bad input by what is bad about it: value, error code and whole detail. Not only for the codec's tests."""

import json
from typing import Final

from pydantic import JsonValue

from agentstream.schemas.topics import MAX_REQUEST_BYTES

HI: Final[JsonValue] = [{"role": "user", "content": "hi"}]
OK: Final = b'{"messages":[{"role":"user","content":"hi"}]}'


def body(**fields: JsonValue) -> bytes:
    """Give a valid request with further fields."""
    return json.dumps({"messages": HI, **fields}).encode()


def nested(levels: int) -> bytes:
    """Give a valid request with so many arrays in each other beside it, inside its own level."""
    return b'{"messages":[{"role":"user","content":"hi"}],"x":' + b"[" * levels + b"]" * levels + b"}"


BAD_INPUT: Final[dict[str, tuple[bytes | None, str, str]]] = {
    "a tombstone": (None, "malformed_json", "the value is empty"),
    "an empty value": (b"", "malformed_json", "the value is empty"),
    "not UTF-8": (b'{"messages":"\xff"}', "malformed_json", "not UTF-8 at byte 13"),
    "UTF-16": ("{}".encode("utf-16"), "malformed_json", "not UTF-8 at byte 0"),
    "not JSON": (b"hello", "malformed_json", "not JSON at line 1 column 1: Expecting value"),
    "a line break in it": (
        b'{"a":"\n"}',
        "malformed_json",
        "not JSON at line 1 column 7: Invalid control character",
    ),
    "a text without an end": (b'{"a":"', "malformed_json", "not JSON at line 1 column 6: Unterminated string"),
    "two objects": (OK + OK, "malformed_json", "not JSON at line 1 column 46: Extra data"),
    "an array": (b"[]", "schema_invalid", "the value must be a JSON object"),
    "a string": (b'"hi"', "schema_invalid", "the value must be a JSON object"),
    "null": (b"null", "schema_invalid", "the value must be a JSON object"),
    "a number": (b"1", "schema_invalid", "the value must be a JSON object"),
    "no messages field": (b"{}", "schema_invalid", "messages: is required"),
    "no messages": (b'{"messages":[]}', "schema_invalid", "messages: must have at least 1 item"),
    "messages that are no array": (b'{"messages":{}}', "schema_invalid", "messages: must be an array"),
    "a message that is no object": (b'{"messages":[5]}', "schema_invalid", "messages.0: must be an object"),
    "the assistant's last word": (
        body(messages=[{"role": "assistant", "content": "hi"}]),
        "schema_invalid",
        "messages: the last message must be from `user` or `tool`",
    ),
    "a message without content": (
        body(messages=[{"role": "user"}]),
        "schema_invalid",
        "messages.0.parts: is required",
    ),
    "content beside parts": (
        body(messages=[{"role": "user", "content": "a", "parts": []}]),
        "schema_invalid",
        "messages.0: give either `parts` or `content`, not both",
    ),
    "content as a list": (
        body(messages=[{"role": "user", "content": [{"type": "text"}]}]),
        "schema_invalid",
        "messages.0: `content` must be a string; use `parts` for anything else",
    ),
    "a part of no known type": (
        body(messages=[{"role": "user", "parts": [{"type": "hologram"}]}]),
        "schema_invalid",
        (
            "messages.0.parts.0: `type` must be one of 'text', 'reasoning', 'tool_call', 'tool_call_response', 'blob', "
            "'file', 'uri'"
        ),
    ),
    "a part without its text": (
        body(messages=[{"role": "user", "parts": [{"type": "text"}]}]),
        "schema_invalid",
        "messages.0.parts.0.content: is required",
    ),
    "a number as text": (body(ttl_ms="5"), "schema_invalid", "ttl_ms: must be an integer"),
    "a truth as a number": (body(ttl_ms=True), "schema_invalid", "ttl_ms: must be an integer"),
    "a deadline in words": (
        body(deadline="tomorrow"),
        "schema_invalid",
        "deadline: must be an RFC 3339 instant with an offset, such as 2026-01-31T12:00:00Z",
    ),
    "a deadline in seconds": (
        body(deadline=1769860800),
        "schema_invalid",
        "deadline: must be an RFC 3339 instant with an offset, such as 2026-01-31T12:00:00Z",
    ),
    "a deadline without an offset": (
        body(deadline="2026-01-31T12:00:00"),
        "schema_invalid",
        "deadline: must be an RFC 3339 instant with an offset, such as 2026-01-31T12:00:00Z",
    ),
    "a deadline that is no instant in UTC": (
        body(deadline="0001-01-01T00:00:00+14:00"),
        "schema_invalid",
        "deadline: must lie between the years 1970 and 9998",
    ),
    "NaN": (b'{"x":[NaN]}', "malformed_json", "x.0: NaN and Infinity are not JSON"),
    "minus infinity": (b'{"x":-Infinity}', "malformed_json", "x: NaN and Infinity are not JSON"),
    "a float beyond doubles": (b'{"x":1e999}', "schema_invalid", "x: the number is too large for a double"),
    "duplicate keys": (
        b'{"messages":[],"messages":[]}',
        "malformed_json",
        "messages: the name stands twice in its object",
    ),
    "duplicate keys inside": (
        b'{"x":{"y":[0,{"a":1,"a":1}]}}',
        "malformed_json",
        "x.y.1.a: the name stands twice in its object",
    ),
    "a number of 10,000 digits": (
        b'{"x":' + b"9" * 10_000 + b"}",
        "payload_too_large",
        "x: a number may have at most 64 digits",
    ),
    "a lone surrogate": (
        b'{"messages":[{"role":"user","content":"\\ud800"}]}',
        "malformed_json",
        "messages.0.content: a lone surrogate such as \\ud800 is no character",
    ),
    "a lone surrogate in a name": (
        b'{"x":{"\\udc00":1}}',
        "malformed_json",
        "x: a lone surrogate such as \\ud800 is no character",
    ),
    "1 MiB of brackets": (b"[" * MAX_REQUEST_BYTES, "payload_too_large", "nested more than 64 deep"),
    "150,000 objects in each other": (b'{"a":' * 150_000, "payload_too_large", "nested more than 64 deep"),
    "one byte too many": (
        OK.ljust(MAX_REQUEST_BYTES + 1),
        "payload_too_large",
        "the value has 1048577 bytes; at most 1048576 are allowed",
    ),
    "too many values": (b'{"x":[' + b"1," * 100_000 + b"1]}", "payload_too_large", "x: more than 100000 values"),
    "a schema registry's frame": (
        b"\x00\x00\x00\x00\x07" + OK,
        "malformed_json",
        (
            "the value begins with 0x00, as a schema registry's serializer writes it: "
            "send plain JSON with a string or byte-array serializer"
        ),
    ),
    "an id of 10,000 characters": (
        body(id="x" * 10_000),
        "schema_invalid",
        "id: String should match pattern '^[A-Za-z0-9._:-]{1,128}$'",
    ),
    "an id that is a path": (
        body(id="../../etc/passwd"),
        "schema_invalid",
        "id: String should match pattern '^[A-Za-z0-9._:-]{1,128}$'",
    ),
    "an id with a line's end": (
        body(id="run\n"),
        "schema_invalid",
        "id: String should match pattern '^[A-Za-z0-9._:-]{1,128}$'",
    ),
    "resume": (
        body(resume={"answer": 1}),
        "unsupported",
        "resume: paused runs are not supported; leave it out and send the history as messages",
    ),
    "a session of 257 characters": (
        body(session_id="s" * 257),
        "schema_invalid",
        "session_id: String should have at most 256 characters",
    ),
}
