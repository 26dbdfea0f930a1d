"""Which runs are meant: those for which everything holds that is given."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from hashlib import sha256
from typing import Final, Literal

from pydantic import JsonValue

from agentstream.schemas.records import Record
from agentstream.schemas.requests import InvokeRequest
from agentstream.schemas.results import InvokeResult

Outcome = Literal["completed", "failed", "cancelled", "unfinished"]
OUTCOMES: Final[tuple[Outcome, ...]] = ("completed", "failed", "cancelled", "unfinished")
_WHOLE = 2**64


@dataclass(frozen=True, kw_only=True, slots=True)
class Selection:
    """Which runs are captured. What is empty or None restricts nothing."""

    since: datetime | None = None
    """Asked at this instant or later, by the request's timestamp."""
    until: datetime | None = None
    """Asked before this instant."""
    sessions: frozenset[str] = frozenset()
    """Of one of these sessions."""
    runs: frozenset[str] = frozenset()
    """One of these runs."""
    outcomes: frozenset[Outcome] = frozenset()
    """Ended in one of these ways; `unfinished`: without a result when the capture looked."""
    codes: frozenset[str] = frozenset()
    """Failed with one of these error codes."""
    models: frozenset[str] = frozenset()
    """Ran with one of these models, as it took effect; without a result, as it was asked for."""
    metadata: tuple[tuple[str, str], ...] = ()
    """The request has these names with these values in its metadata."""
    sample: float = 1.0
    """This share of the sessions, whole ones: half a conversation cannot be judged. The same seed, the same ones."""
    seed: int = 0
    """Of the sample."""
    from_offsets: Mapping[int, int] = field(default_factory=dict)
    """At these offsets of the input or higher, by partition. With any offset given, only partitions named are read."""
    to_offsets: Mapping[int, int] = field(default_factory=dict)
    """Below these offsets of the input, by partition."""
    limit: int | None = None
    """So many at most, the oldest ones."""
    events: bool = True
    """Whether to record events too."""

    @property
    def partitions(self) -> frozenset[int] | None:
        """The partitions that offsets name; None for all."""
        return frozenset({*self.from_offsets, *self.to_offsets}) or None

    def wants_request(self, record: Record, request: InvokeRequest) -> bool:
        """What can be said before the run's outcome is known. `request` has its ids filled in."""
        at, session = record.timestamp_ms, request.session_id or ""
        return (
            (self.since is None or at >= self.since.timestamp() * 1000)
            and (self.until is None or at < self.until.timestamp() * 1000)
            and (not self.runs or request.id in self.runs)
            and (not self.sessions or session in self.sessions)
            and all(request.metadata.get(name) == value for name, value in self.metadata)
            and (self.sample >= 1.0 or self.draws(session))
        )

    def wants_outcome(self, result: InvokeResult) -> bool:
        """The rest, once the outcome is known."""
        code = None if result.error is None else str(result.error.code)
        return (
            (not self.outcomes or result.status in self.outcomes)
            and (not self.codes or code in self.codes)
            and (not self.models or result.parameters.model in self.models)
        )

    def wants_unfinished(self, request: InvokeRequest) -> bool:
        """The rest, where there is no outcome."""
        return (
            (not self.outcomes or "unfinished" in self.outcomes)
            and not self.codes
            and (not self.models or request.parameters.model in self.models)
        )

    def document(self) -> dict[str, JsonValue]:
        """What is given, for the manifest."""
        given: dict[str, JsonValue] = {
            "since": None if self.since is None else self.since.isoformat(),
            "until": None if self.until is None else self.until.isoformat(),
            "sessions": [*sorted(self.sessions)],
            "runs": [*sorted(self.runs)],
            "statuses": [*sorted(self.outcomes)],
            "codes": [*sorted(self.codes)],
            "models": [*sorted(self.models)],
            "metadata": dict(self.metadata),
            "sample": None if self.sample >= 1.0 else self.sample,
            "seed": None if self.sample >= 1.0 else self.seed,
            "from_offsets": {str(number): offset for number, offset in self.from_offsets.items()},
            "to_offsets": {str(number): offset for number, offset in self.to_offsets.items()},
            "limit": self.limit,
            "events": None if self.events else False,
        }
        return {name: value for name, value in given.items() if value not in (None, [], {})}

    def draws(self, session: str) -> bool:
        """Whether the sample holds this session: the same one whoever asks, and when."""
        # By a hash and not by a generator's next number: it must not matter in which order sessions are met.
        digest = sha256(f"{self.seed}/{session}".encode("utf-8", "surrogatepass")).digest()
        return int.from_bytes(digest[:8]) < self.sample * _WHOLE
