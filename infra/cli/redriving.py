"""`agentstream dead-letters redrive`."""

import asyncio
import re
import sys
from dataclasses import asdict, dataclass
from datetime import UTC, datetime

from pydantic import JsonValue

from agentstream.consumers.dead_letters import NoSuchPartition
from agentstream.consumers.redrive import Counts, RedrivePlan, Redriver, Step
from agentstream.infra.cli.context import Context
from agentstream.infra.cli.dead_letter_filters import Asked
from agentstream.infra.cli.dead_letters import is_there, selection_of, summary
from agentstream.infra.cli.exits import FAILED, UNAVAILABLE, USAGE, fail
from agentstream.infra.cli.screen import Screen
from agentstream.infra.printable import one_line
from agentstream.producers.errors import Fenced, WriteError
from agentstream.schemas.topics import OUTPUT_MARGIN_BYTES

_NAME = re.compile(r"[A-Za-z0-9._-]{1,64}", re.ASCII)


@dataclass(frozen=True, kw_only=True, slots=True)
class Wanted:
    """The options that are no filters."""

    to: str | None
    most: int | None
    dry_run: bool
    max_redrives: int
    name: str | None
    batch: int


def run_redrive(context: Context, asked: Asked, wanted: Wanted, *, as_json: bool) -> None:
    """Send them, say what became of them; fail if one that was meant could not be sent."""
    settings = context.settings()
    context.quiet_logs(settings)
    cluster = context.cluster(settings)
    if wanted.name is not None and not _NAME.fullmatch(wanted.name):
        fail(f"--name {wanted.name}: letters, digits, `.`, `_` and `-`, 64 at most", USAGE)
    to = wanted.to or cluster.topics.invoke_requests
    if to == cluster.topics.dead_letters:
        fail("--to: dead letters are not sent to their own topic", USAGE)
    # Another target is another progress: what was tried on a copy of the topic is still to be done.
    name = wanted.name or (asked.name if wanted.to is None else f"{asked.name}-to-{to}")
    plan = RedrivePlan(
        connection=cluster.connection,
        dead_letters=cluster.topics.dead_letters,
        to=to,
        group_id=f"{settings.group_id}-redrive-{name}",
        selection=selection_of(asked, datetime.now(UTC)),
        max_count=wanted.most,
        max_redrives=wanted.max_redrives,
        batch=wanted.batch,
        max_record_bytes=settings.max_request_bytes + OUTPUT_MARGIN_BYTES,
        dry_run=wanted.dry_run,
    )
    screen = Screen()
    listed: list[JsonValue] = []
    progress = _Progress(shown=not as_json and sys.stderr.isatty())
    redriver = Redriver(
        plan, told=lambda step: _tell(step, plan, screen, listed if as_json else None), progress=progress
    )
    try:
        counts = asyncio.run(redriver.run())
    except NoSuchPartition as error:
        fail(str(error), USAGE)
    except Fenced:
        fail(f"another redrive of the same name took over ({plan.group_id}); this one ended. {_said(redriver.counts)}")
    except WriteError as error:
        fail(f"{error}; run it again and it goes on. {_said(redriver.counts)}", UNAVAILABLE)
    finally:
        progress.end()
    if as_json:
        letters: dict[str, JsonValue] = {"letters": listed} if plan.dry_run else {}
        screen.json({"dry_run": plan.dry_run, "group": plan.group_id, "to": plan.to, **asdict(counts), **letters})
    else:
        screen.out(_said(counts, dry_run=plan.dry_run))
    if not as_json and not plan.dry_run:
        screen.note(f"progress is kept as {plan.group_id}; --name begins anew under another name")
    if not counts.sent and not counts.refused:
        _nothing(context, asked, plan, screen)
    if counts.refused:
        fail(f"{counts.refused} could not be sent; the lines above say why", FAILED)


def _nothing(context: Context, asked: Asked, plan: RedrivePlan, screen: Screen) -> None:
    """Say that nothing was to be done; fail if the one that was named is not there at all."""
    if asked.offset is not None and not is_there(context, asked):
        fail(f"no dead letter at {asked.partition}/{asked.offset}" + (" of this kind" if asked.filters else ""), FAILED)
    screen.note(f"nothing to send: no dead letter is meant, or {plan.group_id} has sent all of them before")


def _tell(step: Step, plan: RedrivePlan, screen: Screen, listed: list[JsonValue] | None) -> None:
    """`listed`: where those of a dry run go instead of the screen."""
    where = f"{step.letter.position.partition}/{step.letter.position.offset}"
    if plan.dry_run and listed is not None:
        listed.append({**summary(step.letter), "new_run_id": step.run_id, "not_sent": step.why_not})
    if step.why_not is not None:
        screen.note(f"{where} is not sent: {step.why_not}", "yellow")
    elif plan.dry_run and listed is None:
        session = one_line(step.letter.session_id)
        screen.out(f"would send {where} ({step.letter.code}, session {session}) as run {step.run_id}")


class _Progress:
    """One line on a terminal that counts up."""

    def __init__(self, *, shown: bool) -> None:
        self._shown = shown

    def __call__(self, counts: Counts) -> None:
        if self._shown:
            sys.stderr.write(f"\r\x1b[K{_said(counts)}")
            sys.stderr.flush()

    def end(self) -> None:
        """What comes next begins on a line of its own."""
        if self._shown:
            sys.stderr.write("\n")


def _said(counts: Counts, *, dry_run: bool = False) -> str:
    words = {
        "looping": "refused, sent again too often",
        "lost": "truncated and gone",
        "too_large": "too large for the brokers",
        "broken": "no dead letters",
        "expired": "expired",
    }
    rest = [f"{value} {words[name]}" for name, value in asdict(counts).items() if name in words and value]
    said = ", ".join([f"{counts.sent} sent again of {counts.looked_at} looked at", *rest])
    return f"dry run, nothing was sent: it would be {said}" if dry_run else said
