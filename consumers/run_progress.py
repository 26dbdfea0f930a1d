"""One run between its attempts: what it tried, used and wants to try next."""

from dataclasses import replace
from itertools import count
from random import Random
from typing import Final

from uuid_utils import uuid7

from agentstream.consumers.admitted import Admitted
from agentstream.consumers.attempt import Attempt, Surroundings
from agentstream.consumers.bill import Bill
from agentstream.consumers.ending import Ending, problem_of, reason_of, status_of
from agentstream.consumers.harness.port import Failed, Finished, Harness, HarnessRequest
from agentstream.consumers.interrupt import Cancelled, Drained, Interrupt
from agentstream.consumers.numbering import AttemptName, Numbering
from agentstream.consumers.quarantine import CRASH_LIMIT
from agentstream.consumers.retries import AttemptsSoFar, RetryDecision, decide_retry
from agentstream.consumers.tracing.attempt import AgentFacts
from agentstream.consumers.watchdog import Watchdog
from agentstream.schemas.base import unchecked
from agentstream.schemas.errors import ErrorCode
from agentstream.schemas.events import RunEnded, RunRetrying, RunStarted
from agentstream.schemas.results import HarnessInfo, InvokeResult

# What a harness says was checked before: its events when they were made, its ending by the attempt.
_result, _harness_info = unchecked(InvokeResult), unchecked(HarnessInfo)
_run_started, _run_ended = unchecked(RunStarted), unchecked(RunEnded)
_NOTHING_TRIED: Final = AttemptsSoFar()


class RunProgress:
    """One run as far as it has come."""

    def __init__(self, admitted: Admitted, interrupt: Interrupt, *, harness: Harness, around: Surroundings) -> None:
        self._admitted = admitted
        self._interrupt = interrupt
        self._harness = harness
        self._around = around
        self._bill = Bill()
        self._numbers = count(admitted.attempt)
        self._tried = _NOTHING_TRIED
        self._attempt: Attempt | None = None
        self._crashes = admitted.crashes
        self._apart = False
        self._clock = interrupt.bell.loop.time
        self._latest = admitted.latest
        self._total_due = self._clock() + self._total_seconds()

    @property
    def started_event(self) -> RunStarted:
        """What begins each attempt."""
        parameters, request = self._admitted.parameters, self._admitted.request
        return _run_started(model=parameters.model, harness=parameters.choice.kind, parent_run_id=request.parent_run_id)

    def refusal(self) -> Failed | Cancelled | Drained | None:
        """Why the run does not even start, if there is a reason."""
        latest, problem = self._latest, self._admitted.parameters.problem
        if self._interrupt.requested is not None:
            return self._interrupt.requested
        if self._admitted.crashes >= CRASH_LIMIT:
            return Failed(code=ErrorCode.CRASH_LIMIT, detail=f"{self._admitted.crashes} workers were lost while it ran")
        if latest is not None and self._around.now() > latest:
            return Failed(code=ErrorCode.DEADLINE_EXCEEDED, detail=f"it had to start by {latest.isoformat()}")
        if problem is not None:
            return Failed(code=problem.code, detail=problem.detail or problem.title, retriable=False)
        return None

    def begin_attempt(self) -> Attempt:
        """The next attempt, not yet playing."""
        admitted, number = self._admitted, next(self._numbers)
        announced = admitted.announced_as if self._attempt is None else None
        attempt_id = announced or str(uuid7())
        name = AttemptName(
            run_id=admitted.run_id,
            session_id=admitted.session_id,
            claim=admitted.claim,
            attempt=number,
            attempt_id=attempt_id,
        )
        self._attempt = Attempt(
            self._harness,
            _harness_request(admitted, name, apart=self._apart),
            numbering=Numbering(
                name,
                mode=admitted.parameters.stream,
                redactor=self._around.redactor,
                first_seq=0 if announced is None else 1,
            ),
            watchdog=Watchdog(admitted.parameters.limits, started=self._clock(), total_due=self._total_due),
            bill=self._bill,
            interrupt=self._interrupt,
            surroundings=self._around,
            spans=admitted.process.attempt(name, self._agent_facts(), self._around.now()),
        )
        return self._attempt

    def judge(self, ending: Ending, rng: Random) -> tuple[Ending | None, RetryDecision | None]:
        """What an attempt's ending means for the run: its own ending, or another attempt."""
        self._bill.close_attempt(ending.cost if isinstance(ending, Finished | Failed) else None)
        if isinstance(ending, Drained):
            self._around.metrics.drained()
        if not isinstance(ending, Failed):
            return ending, None
        self._tried = self._tried.plus(ending)
        if ending.code is ErrorCode.HARNESS_CRASHED:
            self._apart = True
            self._crashes += not ending.lost_with_others
            if self._crashes >= CRASH_LIMIT:
                return replace(ending, code=ErrorCode.CRASH_LIMIT, retriable=False), None
        retry = decide_retry(
            ending,
            self._tried,
            max_attempts=self._admitted.parameters.limits.max_attempts,
            time_left_ms=(self._total_due - self._clock()) * 1000,
            rng=rng,
            policy=self._admitted.parameters.retry.policy,
        )
        if retry is None:
            return ending, None
        self._around.metrics.retried(ending.code.value)
        return None, retry

    def closing_event(self, ending: Ending, retry: RetryDecision | None) -> RunRetrying | RunEnded:
        """The last event of an attempt."""
        if isinstance(ending, Drained):
            return RunRetrying(delay_ms=0, reason="draining")
        if retry is not None:
            return RunRetrying(error=problem_of(ending), delay_ms=retry.delay_ms)
        return _run_ended(
            status=status_of(ending),
            finish_reason=reason_of(ending),
            usage=self._bill.usage,
            error=problem_of(ending),
        )

    async def wait(self, retry: RetryDecision) -> Ending | None:
        """Wait for the next attempt; gives what interrupted it, if anything."""
        interrupt, due = self._interrupt, self._clock() + retry.delay_ms / 1000
        try:
            while interrupt.requested is None and self._clock() < due:
                await interrupt.bell.wait(due)
        finally:
            interrupt.bell.stop()
        return interrupt.requested

    def result(self, ending: Finished | Failed | Cancelled) -> InvokeResult:
        """The run's result."""
        admitted, attempt = self._admitted, self._attempt
        kind, versions = self._harness.kind, dict(self._harness.versions)
        return _result(
            run_id=admitted.run_id,
            session_id=admitted.session_id,
            partition=admitted.position.partition,
            status=status_of(ending),
            messages=tuple(attempt.messages) if attempt else (),
            finish_reason=reason_of(ending),
            usage=self._bill.usage,
            cost=self._bill.cost,
            error=problem_of(ending),
            claim=admitted.claim,
            attempt=attempt.request.attempt if attempt else 0,
            attempt_id=attempt.request.attempt_id if attempt else None,
            crashes=admitted.crashes,
            last_seq=attempt.last_seq if attempt else -1,
            deltas="complete",
            parameters=admitted.parameters.to_wire(),
            harness=_harness_info(kind=kind, versions=versions) if attempt else None,
            metadata=admitted.request.metadata,
            redrive_of=admitted.redrive_of,
            trace_id=admitted.trace.trace_id,
            requested_at=admitted.requested_at,
            started_at=attempt.started_at if attempt else None,
            ended_at=self._around.now(),
        )

    def _agent_facts(self) -> AgentFacts:
        parameters = self._admitted.parameters
        return AgentFacts(
            model=parameters.model, harness=parameters.choice.kind, messages=self._admitted.request.messages
        )

    def _total_seconds(self) -> float:
        seconds = self._admitted.parameters.limits.total_ms / 1000
        if self._latest is not None:
            seconds = min(seconds, (self._latest - self._around.now()).total_seconds())
        return seconds


def _harness_request(admitted: Admitted, name: AttemptName, *, apart: bool) -> HarnessRequest:
    parameters = admitted.parameters
    return HarnessRequest(
        run_id=name.run_id,
        session_id=name.session_id,
        attempt=name.attempt,
        attempt_id=name.attempt_id,
        messages=admitted.request.messages,
        model=parameters.model,
        agents_md=parameters.agents_md,
        tools=parameters.tools,
        choice=parameters.choice,
        thinking=parameters.thinking,
        limits=parameters.limits,
        credentials=parameters.credentials,
        trace=admitted.process.attempt_trace(name.attempt_id),
        apart=apart,
    )
