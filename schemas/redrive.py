"""A request that is sent again from the dead letters: which run it is now, and which one it was first.

`dlq-redrive-count: n` makes it a new run, uuid5 of the original id and n; `dlq-redrive-of` names the original run where
the record itself does not, or names another one.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final
from uuid import UUID, uuid5

from agentstream.schemas.base import RUN_ID_PATTERN
from agentstream.schemas.errors import ErrorCode, Problem
from agentstream.schemas.headers import REDRIVE_COUNT, REDRIVE_OF, header_text
from agentstream.schemas.records import Position

RUN_ID_NAMESPACE: Final = UUID("6f9a3c1e-52d7-4b0e-9d64-0c8e3f7a21b5")
"""Ours, for good: another one would give a redelivered request another run id, and it would run twice."""
_COUNT = re.compile(r"[1-9][0-9]{0,5}", re.ASCII)
_RUN_ID = re.compile(RUN_ID_PATTERN)


@dataclass(frozen=True, kw_only=True, slots=True)
class Redrive:
    """What a record's headers say about its having been sent again."""

    original_id: str
    """The run that it was at first."""
    count: int
    """How often it was sent again, from 1."""

    @property
    def run_id(self) -> str:
        """The run that it is now: the same at every delivery, and whoever sends that dead letter again."""
        return str(uuid5(RUN_ID_NAMESPACE, f"redrive/{self.original_id}/{self.count}"))

    def to_headers(self) -> list[tuple[str, bytes]]:
        """As it is written."""
        return [(REDRIVE_COUNT, str(self.count).encode()), (REDRIVE_OF, self.original_id.encode())]


def redrive_of(headers: Mapping[str, bytes], named: str | None) -> Redrive | Problem | None:
    """What the headers say; None for a record that was not sent again. `named`: the run its body or `ce_id` names."""
    if REDRIVE_COUNT not in headers:
        return None
    count = header_text(headers, REDRIVE_COUNT) or ""
    if not _COUNT.fullmatch(count):
        return Problem.of(ErrorCode.SCHEMA_INVALID, f"header {REDRIVE_COUNT}: must be a whole number from 1 to 999999")
    original = named if REDRIVE_OF not in headers else header_text(headers, REDRIVE_OF)
    if original is None or not _RUN_ID.fullmatch(original):
        return Problem.of(
            ErrorCode.SCHEMA_INVALID, f"header {REDRIVE_OF}: must be the id of the run that is sent again"
        )
    return Redrive(original_id=original, count=int(count))


def redrives(headers: Mapping[str, bytes]) -> int:
    """How often a record was sent again; 0 where the header is absent or says nothing."""
    count = header_text(headers, REDRIVE_COUNT) or ""
    return int(count) if _COUNT.fullmatch(count) else 0


def coordinates_id(original: Position) -> str:
    """An id for a record that names no run, made of nothing but its coordinates."""
    return str(uuid5(RUN_ID_NAMESPACE, str(original)))
