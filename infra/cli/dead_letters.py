"""`agentstream dead-letters list`, `show` and `export`."""

import asyncio
import base64
import io
import json
import re
from collections.abc import Callable
from contextlib import aclosing
from datetime import UTC, datetime
from pathlib import Path

from pydantic import JsonValue

from agentstream.consumers.dead_letters import DeadLetters, NoSuchPartition, Selection, written_at
from agentstream.consumers.readers import Expired
from agentstream.infra.cli.context import Context
from agentstream.infra.cli.dead_letter_filters import Asked
from agentstream.infra.cli.exits import FAILED, USAGE, fail
from agentstream.infra.cli.instants import window
from agentstream.infra.cli.screen import Screen, styled
from agentstream.infra.cli.whole_file import whole_file
from agentstream.infra.printable import escaped, one_line
from agentstream.schemas.dead_letters import DeadLetter
from agentstream.schemas.errors import ErrorCode, error_rule


def selection_of(asked: Asked, now: datetime) -> Selection:
    """What the filters mean. Raises CommandError."""
    known = set(ErrorCode)
    if unknown := [code for code in asked.codes if code not in known]:
        fail(f"--code {unknown[0]}: no such error code; docs/errors.md lists them", USAGE)
    if asked.offset is not None and asked.partition is None:
        fail("--offset wants --partition too", USAGE)
    if bad := [header for header in asked.headers if "=" not in header]:
        fail(f"--header {bad[0]}: must be name=value", USAGE)
    since, until = window(asked.since, asked.until, now)
    return Selection(
        codes=frozenset(asked.codes),
        session=asked.session,
        since=since,
        until=until,
        headers=tuple((name, value) for name, _, value in (header.partition("=") for header in sorted(asked.headers))),
        partition=asked.partition,
        offset=asked.offset,
    )


def list_letters(context: Context, asked: Asked, *, most: int | None, as_json: bool) -> None:
    """Print the dead letters that are meant: three lines for each, one in a pipe, or one JSON object a line."""
    screen = Screen()

    def shown(letter: DeadLetter) -> None:
        if as_json:
            screen.json(summary(letter))
        elif screen.for_people:
            _tell(letter, screen)
        else:
            where = f"{letter.position.partition}/{letter.position.offset}"
            ids = (letter.code, letter.session_id, letter.run_id or "", str(letter.redrives or ""))
            screen.out("\t".join(map(one_line, (where, written_at(letter), *ids, letter.message))))

    asyncio.run(_each(context, asked, most, shown, screen))


def _tell(letter: DeadLetter, screen: Screen) -> None:
    """For people no table: on 80 columns it cut off every id, and what is not whole cannot be given to `show`."""
    at = f"{letter.position.partition}/{letter.position.offset}"
    code = styled(one_line(letter.code), "red")
    again = f" · sent again {letter.redrives}×" if letter.redrives else ""
    screen.out(f"{styled(at, 'bold')}  {written_at(letter)}  {code}{again}")
    screen.out(styled(f"    session {one_line(letter.session_id)} · run {one_line(letter.run_id or '–')}", "dim"))
    screen.out(f"    {one_line(letter.message)}")


def show_letter(context: Context, position: str, *, as_json: bool) -> None:
    """Print one dead letter whole."""
    found = re.fullmatch(r"(\d{1,9})/(\d{1,18})", position, re.ASCII)
    if found is None:
        fail(f"{position}: must be PARTITION/OFFSET, such as 3/17; `agentstream dead-letters list` shows them", USAGE)
    asked = Asked(partition=int(found[1]), offset=int(found[2]))
    letters: list[DeadLetter] = []
    screen = Screen()
    asyncio.run(_each(context, asked, 1, letters.append, screen))
    if not letters:
        fail(f"no dead letter at {position}", FAILED)
    if as_json:
        screen.json(whole(letters[0]), pretty=True)
        return
    letter = letters[0]
    for name, value in summary(letter).items():
        screen.out(f"{name}: {one_line(str(value))}")
    if letter.code in set(ErrorCode):
        screen.out(f"what to do: {error_rule(ErrorCode(letter.code)).advice}")
    screen.out("headers:")
    for name, raw in letter.record.headers:
        told = escaped(f"{name}: {(raw or b'').decode(errors='replace')}").replace("\n", "\\n")
        screen.out(f"  {told}")
    screen.out("value:")
    screen.out(escaped((letter.record.value or b"").decode(errors="replace")))


def export_letters(context: Context, asked: Asked, *, most: int | None, output: Path | None) -> None:
    """Write them as JSON Lines: text as it is, other bytes as base64. A file is written whole or not at all."""
    screen, count = Screen(), 0
    if output is None:
        asyncio.run(_each(context, asked, most, lambda letter: screen.json(whole(letter)), screen))
        return
    try:
        with whole_file(output) as file:

            def write(letter: DeadLetter) -> None:
                nonlocal count
                count += 1
                file.write(json.dumps(whole(letter), ensure_ascii=False) + "\n")

            asyncio.run(_each(context, asked, most, write, screen))
    except OSError as error:
        if error.errno is None:
            raise  # a TimeoutError, which is Kafka's
        fail(f"{output}: cannot be written ({error.strerror})", USAGE)
    screen.note(f"{count} written to {output}")


def is_there(context: Context, asked: Asked) -> bool:
    """Whether any dead letter is meant."""
    found: list[DeadLetter] = []
    asyncio.run(_each(context, asked, 1, found.append, Screen(err=io.StringIO())))
    return bool(found)


def summary(letter: DeadLetter) -> dict[str, JsonValue]:
    """A dead letter without what the record holds."""
    return {
        "at": f"{letter.position.partition}/{letter.position.offset}",
        "written": written_at(letter),
        "code": letter.code,
        "stage": letter.stage,
        "retriable": letter.retriable,
        "message": letter.message,
        "run_id": letter.run_id,
        "session_id": letter.session_id,
        "request": str(letter.record.position),
        "group": letter.group,
        "deliveries": letter.deliveries,
        "redrives": letter.redrives,
        "truncated": letter.truncated,
    }


def whole(letter: DeadLetter) -> dict[str, JsonValue]:
    """A dead letter with the record as it was."""
    record = letter.record
    headers: list[JsonValue] = [[name, _bytes(value)] for name, value in record.headers]
    return {**summary(letter), "key": _bytes(record.key), "value": _bytes(record.value), "headers": headers}


def _bytes(raw: bytes | None) -> JsonValue:
    if raw is None:
        return None
    try:
        return raw.decode()
    except UnicodeDecodeError:
        return {"base64": base64.b64encode(raw).decode()}


async def _each(
    context: Context, asked: Asked, most: int | None, do: Callable[[DeadLetter], None], screen: Screen
) -> None:
    """Do something with each dead letter that is meant, and say what else was found."""
    settings = context.settings()
    context.quiet_logs(settings)
    cluster = context.cluster(settings)
    letters = DeadLetters(cluster.connection, cluster.topics.dead_letters)
    count = broken = expired = 0
    selection = selection_of(asked, datetime.now(UTC))
    try:
        start = {number: bounds.first for number, bounds in (await letters.bounds(selection)).items()}
    except NoSuchPartition as error:
        fail(str(error), USAGE)
    async with aclosing(letters.read(selection, start)) as all_found:
        async for found in all_found:
            if isinstance(found, Expired):
                expired += found.resumed_at - found.expected
            elif found.letter is not None:
                count += 1
                do(found.letter)
                if count == most:
                    break
            else:
                broken += found.broken is not None
    if broken:
        screen.note(f"left out: {broken} records of {letters.topic} that are no dead letters of agentstream", "yellow")
    if expired:
        screen.note(f"{expired} offsets expired before they were read", "yellow")
