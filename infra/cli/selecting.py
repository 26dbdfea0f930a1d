"""The options of `agentstream capture` that choose runs, and what they mean."""

import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Self

from pydantic import JsonValue, TypeAdapter

from agentstream.consumers.replay.recording.selection import OUTCOMES, Outcome, Selection
from agentstream.infra.cli.exits import USAGE, fail
from agentstream.infra.cli.instants import window
from agentstream.schemas.errors import ErrorCode

_OFFSET = re.compile(r"(\d{1,9}):(\d{1,18})", re.ASCII)
Texts = list[str] | None


@dataclass(frozen=True, kw_only=True, slots=True)
class Typed:
    """The options as they were typed."""

    since: str | None = None
    until: str | None = None
    sessions: Texts = None
    runs: Texts = None
    statuses: Texts = None
    codes: Texts = None
    models: Texts = None
    metadata: Texts = None
    sample: float | None = None
    seed: int = 0
    from_offsets: Texts = None
    to_offsets: Texts = None
    limit: int | None = None
    patterns: Texts = None
    paths: Texts = None
    events: bool = True

    @property
    def document(self) -> dict[str, JsonValue]:
        """Those that were given: a resumed capture is asked for with the same ones, or with none."""
        plain: dict[str, JsonValue] = asdict(self)
        nothing = asdict(Typed())
        return {name: value for name, value in plain.items() if value not in (nothing[name], [])}

    @classmethod
    def of(cls, document: JsonValue) -> Self:
        """What `document` was."""
        assert isinstance(document, dict)
        return TypeAdapter(cls).validate_python(document)

    def selection(self, now: datetime) -> Selection:
        """What they mean. Raises CommandError."""
        outcomes: frozenset[Outcome] = frozenset(
            outcome for outcome in OUTCOMES if outcome in _known("--status", self.statuses, OUTCOMES)
        )
        since, until = window(self.since, self.until, now)
        return Selection(
            since=since,
            until=until,
            sessions=frozenset(self.sessions or ()),
            runs=frozenset(self.runs or ()),
            outcomes=outcomes,
            codes=_known("--code", self.codes, tuple(ErrorCode)),
            models=frozenset(self.models or ()),
            metadata=tuple(_pair("--metadata", text) for text in self.metadata or ()),
            sample=1.0 if self.sample is None else self.sample,
            seed=self.seed,
            from_offsets=dict(_offset("--from-offset", text) for text in self.from_offsets or ()),
            to_offsets=dict(_offset("--to-offset", text) for text in self.to_offsets or ()),
            limit=self.limit,
            events=self.events,
        )


def _known(option: str, given: Texts, known: Sequence[str]) -> frozenset[str]:
    if unknown := [text for text in given or () if text not in known]:
        choices = ", ".join(known) if len(known) < 10 else "docs/errors.md lists them"
        fail(f"{option} {unknown[0]}: there is no such one ({choices})", USAGE)
    return frozenset(given or ())


def _pair(option: str, text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not equals or not name:
        fail(f"{option} {text}: must be key=value", USAGE)
    return name, value


def _offset(option: str, text: str) -> tuple[int, int]:
    found = _OFFSET.fullmatch(text)
    if found is None:
        fail(f"{option} {text}: must be PARTITION:OFFSET, such as 3:1700", USAGE)
    return int(found[1]), int(found[2])
