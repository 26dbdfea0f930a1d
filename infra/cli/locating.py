"""`agentstream where`."""

import asyncio
import re
import sys
from collections.abc import Iterator
from dataclasses import asdict

from pydantic import JsonValue

from agentstream.consumers.whereabouts import Search, Whereabouts
from agentstream.infra.cli.context import Context
from agentstream.infra.cli.exits import FAILED, USAGE, fail
from agentstream.infra.cli.screen import Screen
from agentstream.infra.printable import one_line
from agentstream.schemas.base import RUN_ID_PATTERN

_SENTENCES = {
    "unread": "no worker has read it yet",
    "waiting": "it waits in its worker",
    "running": "it runs",
    "refused": "it was refused, and is a dead letter",
    "unknown": "not found on the log: it was never sent, its partition cannot be read, or it is older than the"
    " topics' retention (30 days unless it was changed)",
}


def run_where(context: Context, run_id: str, *, last: int, as_json: bool) -> None:
    """Look, and say; exit code 1 if the run is nowhere."""
    check_run_id(run_id)
    settings = context.settings()
    context.quiet_logs(settings)
    cluster = context.cluster(settings)
    screen = Screen()
    search = Search(cluster.connection, cluster.topics, settings.group_id, last=last, progress=screen.note)
    found = asyncio.run(search.find(run_id))
    if as_json:
        screen.json({"where": document(found)})
    else:
        screen.out(f"{run_id}: {sentence(found)}")
        for name, value in _details(found):
            screen.out(f"{name}\t{value}")
        for note in found.notes:
            screen.note(note, "yellow")
    if found.state == "unknown":
        sys.exit(FAILED)


def check_run_id(run_id: str) -> None:
    """Fails for what can be no run's id, such as bytes that are no text."""
    if re.fullmatch(RUN_ID_PATTERN, run_id) is None:
        fail(f"{run_id!a} is no run id: those are 1 to 128 of A-Z, a-z, 0-9 and ._:-", USAGE)


def sentence(found: Whereabouts) -> str:
    """Where it is, in words."""
    if found.state == "finished":
        return f"it has ended: {found.status}"
    said = _SENTENCES[found.state]
    if found.state in ("unread", "waiting") and found.behind is not None:
        return f"{said}, behind {found.behind} ({found.ahead} of its session before it)"
    if found.state == "waiting":
        return f"{said}, for a free slot: none of its session is before it"
    return said


def _details(found: Whereabouts) -> Iterator[tuple[str, str]]:
    for name in ("session_id", "request", "result", "dead_letter", "error", "claim", "owner", "attempt"):
        if (value := getattr(found, name)) is not None:
            yield name, one_line(str(value))
    if found.last_event is not None and found.last_event_at is not None:
        yield "last_event", f"{found.last_event} at {found.last_event_at.isoformat()}"


def document(found: Whereabouts) -> JsonValue:
    """What is known of where it is."""
    shown: dict[str, JsonValue] = {}
    for name, value in asdict(found).items():
        if value is None:
            continue
        shown[name] = value.isoformat() if name == "last_event_at" else list(value) if name == "notes" else value
    return shown
