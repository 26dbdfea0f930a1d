"""What happened, counted and measured as it happens. All calls are plain, quick and never raise."""

from collections.abc import Iterable
from typing import Final

from opentelemetry.metrics import Histogram, Meter, NoOpMeter, NoOpMeterProvider

from agentstream.consumers.effective import EffectiveParameters
from agentstream.consumers.metrics import names
from agentstream.consumers.metrics.durations import Durations
from agentstream.consumers.metrics.names import MetricName
from agentstream.consumers.metrics.tally import Tally
from agentstream.producers.outcomes import Outcome
from agentstream.schemas import span_names
from agentstream.schemas.errors import ErrorCode, Problem
from agentstream.schemas.messages import Usage

_SYSTEM: Final = {span_names.MESSAGING_SYSTEM: span_names.KAFKA}


def histogram(meter: Meter, metric: MetricName) -> Histogram:
    """A histogram of this name."""
    return meter.create_histogram(
        metric.name, metric.unit, metric.description, explicit_bucket_boundaries_advisory=metric.buckets
    )


class Metrics:
    """One worker's. Labels are bounded: codes, statuses, harnesses, models of our own results; never ids."""

    def __init__(self, meter: Meter, *, input_topic: str, group_id: str) -> None:
        """`meter` is OpenTelemetry's, or one that does nothing (see `none`). One of these for each: of two counters of
        one name the SDK reads only the first, and what the second worker of a process counted would be lost."""
        self.meter = meter
        self.are_read = not isinstance(meter, NoOpMeter)
        """Whether anybody sees them: what takes long to work out is worked out only then."""
        self.durations = Durations()
        topic = {**_SYSTEM, span_names.DESTINATION: input_topic, span_names.GROUP: group_id}
        self._process = {**topic, span_names.OPERATION: span_names.PROCESS}
        self._consumed = Tally(meter, names.CONSUMED, always={**topic, span_names.OPERATION: "poll"})
        self._processed = histogram(meter, names.PROCESS_DURATION)
        self._runs = Tally(meter, names.RUNS, names.STATUS, span_names.ERROR_TYPE)
        self._dead_letters = Tally(meter, names.DEAD_LETTERS, span_names.ERROR_TYPE)
        self._duplicates = Tally(meter, names.DUPLICATES)
        self._retries = Tally(meter, names.RETRIES, span_names.ERROR_TYPE)
        self._voided = Tally(meter, names.VOIDED, names.REASON)
        self._claims = Tally(meter, names.CLAIMS)
        self._takeovers = Tally(meter, names.TAKEOVERS)
        self._transactions = histogram(meter, names.TRANSACTION_DURATION)
        self._outcomes = histogram(meter, names.TRANSACTION_RESULTS)
        self._commit_waits = histogram(meter, names.COMMIT_WAIT)
        self._deltas = histogram(meter, names.DELTA_DURATION)
        self._calls = histogram(meter, names.MODEL_DURATION)
        self._tokens = histogram(meter, names.TOKEN_USAGE)
        self._first_chunks = histogram(meter, names.TIME_TO_FIRST_CHUNK)
        self._begin_at_zero()

    @classmethod
    def none(cls) -> "Metrics":
        """Measures nothing, but learns durations all the same."""
        return cls(NoOpMeterProvider().get_meter("agentstream"), input_topic="", group_id="")

    def _begin_at_zero(self) -> None:
        """What alarms watch: a series that begins with its first event has no increase, and no alarm."""
        for each in (self._claims, self._takeovers, self._duplicates):
            each.add(0)
        for reason in ("retry", "draining", "moved", "takeover"):
            self._voided.add(0, reason)
        self._runs.add(0, "completed", None)
        self._runs.add(0, "failed", ErrorCode.CRASH_LIMIT.value)

    def received(self) -> None:
        """A record was taken from the input."""
        self._consumed.add(1)

    def duplicate(self) -> None:
        """A request was dropped, since it is known already."""
        self._duplicates.add(1)

    def processed(self, parameters: EffectiveParameters, seconds: float, error: Problem | None) -> None:
        """A run's result was committed, so many seconds after its turn came."""
        kind = parameters.choice.kind
        self.durations.learn(kind, parameters.model, seconds)
        attributes = {**self._process, names.HARNESS: kind}
        self._processed.record(
            seconds, attributes if error is None else {**attributes, span_names.ERROR_TYPE: error.code.value}
        )

    def retried(self, code: str) -> None:
        """An attempt failed and the run is tried again."""
        self._retries.add(1, code)
        self._voided.add(1, "retry")

    def drained(self) -> None:
        """An attempt was ended because the worker stops."""
        self._voided.add(1, "draining")

    def moved(self, count: int) -> None:
        """So many attempts were under way when their partition went to another worker."""
        if count:
            self._voided.add(count, "moved")

    def claimed(self, *, taken_over: bool, lost: int) -> None:
        """A partition was claimed; `lost` runs were under way when its former owner vanished."""
        self._claims.add(1)
        if taken_over:
            self._takeovers.add(1)
        if lost:
            self._voided.add(lost, "takeover")

    def committed(self, outcomes: Iterable[Outcome], seconds: float | None, waits: Iterable[float]) -> None:
        """A transaction was committed with these outcomes; `waits` are theirs, in seconds from being ready.

        It took `seconds`; None where that was only found out afterwards.
        """
        count = 0
        for outcome in outcomes:
            count += 1
            if outcome.status is not None:
                self._runs.add(1, outcome.status, outcome.code)
            if outcome.dead_letter:
                self._dead_letters.add(1, outcome.code or span_names.OTHER)
        if seconds is not None:
            self._transactions.record(seconds)
        self._outcomes.record(count)
        for wait in waits:
            self._commit_waits.record(wait)

    def not_committed(self, seconds: float, error: str) -> None:
        """A transaction failed, for `error`, a class of ours."""
        self._transactions.record(seconds, {span_names.ERROR_TYPE: error})

    def delta_acknowledged(self, seconds: float) -> None:
        """The brokers have a delta record, so long after it was handed over."""
        self._deltas.record(seconds)

    def model_called(
        self, model: str | None, seconds: float, *, first_chunk_s: float | None, usage: Usage | None, error: str | None
    ) -> None:
        """A model call ended. `model` is what the run asked for, as `provider/id`."""
        provider, _, name = (model or "").partition("/")
        if usage is not None:
            provider, name = provider or usage.provider, name or usage.model
        attributes = {
            span_names.GEN_AI_OPERATION: span_names.CHAT,
            span_names.PROVIDER: span_names.PROVIDERS.get(provider, provider) or span_names.OTHER,
            span_names.REQUEST_MODEL: name,
        }
        if usage is not None:
            attributes[span_names.RESPONSE_MODEL] = usage.model
        self._calls.record(seconds, attributes if error is None else {**attributes, span_names.ERROR_TYPE: error})
        if first_chunk_s is not None:
            self._first_chunks.record(first_chunk_s, attributes)
        if usage is not None:
            self._tokens.record(usage.input_tokens, {**attributes, span_names.TOKEN_TYPE: "input"})
            self._tokens.record(usage.output_tokens, {**attributes, span_names.TOKEN_TYPE: "output"})

    def tool_called(self, tool: str | None, seconds: float, *, error: str | None) -> None:
        """A tool call ended. `tool` is one that the run was allowed: few; None: a name that the model made up."""
        attributes = {
            span_names.GEN_AI_OPERATION: span_names.EXECUTE_TOOL,
            span_names.TOOL_NAME: span_names.OTHER if tool is None else tool,
        }
        self._calls.record(seconds, attributes if error is None else {**attributes, span_names.ERROR_TYPE: error})
