"""The pieces of parts in a recorded run, as one text each: what is taken out may be split over two of them."""

import json
from collections.abc import Callable, Iterator
from itertools import accumulate

from pydantic import JsonValue

from agentstream.consumers.redaction import REDACTED

Document = dict[str, JsonValue]
Spans = list[tuple[int, int]]


def join_deltas(document: Document, find: Callable[[str], Spans]) -> None:
    """Replace what `find` finds in the joined pieces of each part: its stretches, ascending and apart. In place.

    Every piece keeps its event: what is put in a stretch's place stands in the piece in which that begins.
    """
    for events in _parts(document).values():
        pieces = [str(event["delta"]) for event in events]
        if spans := find("".join(pieces)):
            for event, piece in zip(events, _cut(pieces, spans), strict=True):
                event["delta"] = piece


def rewrite_arguments(document: Document) -> None:
    """Make the pieces of tool calls say what their complete arguments say. In place.

    A number or a short text that a path took out of the arguments cannot be looked for in the pieces; so the first
    piece gets all of the complete arguments, and the others nothing.
    """
    complete: dict[tuple[str, JsonValue], JsonValue] = {}
    for event in _events(document):
        if event["type"] == "part.ended" and isinstance(part := event["part"], dict):
            complete[str(event["message_id"]), event["part_index"]] = part.get("arguments")
    for key, events in _parts(document).items():
        if events[0]["part_type"] != "tool_call":
            continue
        whole = json.dumps(complete[key], ensure_ascii=False) if key in complete else REDACTED
        for event, piece in zip(events, [whole, *[""] * (len(events) - 1)], strict=True):
            event["delta"] = piece


def _events(document: Document) -> Iterator[Document]:
    events = document["events"]
    assert isinstance(events, list)
    return (event for event in events if isinstance(event, dict))


def _parts(document: Document) -> dict[tuple[str, JsonValue], list[Document]]:
    parts: dict[tuple[str, JsonValue], list[Document]] = {}
    for event in _events(document):
        if event["type"] == "part.delta":
            parts.setdefault((str(event["message_id"]), event["part_index"]), []).append(event)
    return parts


def _cut(pieces: list[str], spans: Spans) -> Iterator[str]:
    for end, piece in zip(accumulate(map(len, pieces)), pieces, strict=True):
        begin, at, kept = end - len(piece), end - len(piece), []
        for first, last in spans:
            if last <= begin or first >= end:
                continue
            kept.append(piece[at - begin : max(first, at) - begin])
            if first >= begin:
                kept.append(REDACTED)
            at = min(last, end)
        yield "".join([*kept, piece[at - begin :]])
