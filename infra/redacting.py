"""What is written about refused requests, without secrets.

Runs redact what agents say. A request that is refused never becomes a run, but its problem quotes it: a caller who sent
a key of ours as the name of a harness read it back, and so did every reader of the results.
"""

from dataclasses import replace

from agentstream.consumers.redaction import Redactor
from agentstream.producers.outcomes import Outcome, OutcomeEncoder, Rejected, RunOutcome
from agentstream.schemas.errors import Problem
from agentstream.schemas.topics import Topics


class RedactingEncoder(OutcomeEncoder):
    """Makes the records of an outcome, with known secrets replaced in the problems of refused requests."""

    def __init__(self, topics: Topics, group_id: str, *, max_record_bytes: int, redactor: Redactor) -> None:
        super().__init__(topics, group_id, max_record_bytes=max_record_bytes)
        self._redactor = redactor

    def refused(self, end: RunOutcome, problem: Problem) -> Outcome:
        """As `OutcomeEncoder.refused`."""
        return super().refused(replace(end, result=self._redactor.model(end.result)), self._redactor.model(problem))

    def rejected(self, end: Rejected) -> Outcome:
        """As `OutcomeEncoder.rejected`."""
        return super().rejected(replace(end, problem=self._redactor.model(end.problem)))
