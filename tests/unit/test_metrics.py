"""What is counted, under which names and labels, by the real SDK read in memory."""

from datetime import UTC, datetime

import pytest
from pydantic import JsonValue

from agentstream.consumers.metrics import names
from agentstream.consumers.metrics.calls import CallMetrics
from agentstream.consumers.metrics.durations import MAX_KINDS, Durations
from agentstream.consumers.metrics.gauges import _bounded
from agentstream.producers.outcomes import Outcome
from agentstream.schemas.events import ToolEnded, ToolStarted
from agentstream.schemas.messages import Usage
from tests.support.metering import Meters
from tests.unit.playing import Scene, play


def test_a_result_is_counted_by_status_and_code_and_its_dead_letter_by_code() -> None:
    meters = Meters()
    done = Outcome(offset=1, records=(), status="completed")
    failed = Outcome(offset=2, records=(), status="failed", code="provider_error", dead_letter=True)
    refused = Outcome(offset=3, records=(), code="malformed_json", dead_letter=True)

    meters.metrics.committed([done, done, failed, refused], 0.02, [0.01])

    assert meters.sums("agentstream.runs") == {
        (("agentstream.run.status", "completed"),): 2,
        (("agentstream.run.status", "failed"), ("error.type", "provider_error")): 1,
    }
    assert meters.sums("agentstream.dead_letters") == {
        (("error.type", "malformed_json"),): 1,
        (("error.type", "provider_error"),): 1,
    }
    assert meters.sums("agentstream.transaction.outcomes") == {(): 4}


def test_a_counter_is_read_as_it_stands_each_time_somebody_collects() -> None:
    meters = Meters()
    for expected in (1, 2):
        meters.metrics.received()
        labels = {
            ("messaging.system", "kafka"),
            ("messaging.destination.name", "requests"),
            ("messaging.consumer.group.name", "workers"),
            ("messaging.operation.name", "poll"),
        }
        assert meters.sums(names.CONSUMED.name) == {tuple(sorted(labels)): expected}


def test_a_failed_transaction_is_measured_with_its_error() -> None:
    meters = Meters()

    meters.metrics.not_committed(0.5, "Fenced")

    assert meters.sums("agentstream.transaction.duration") == {(("error.type", "Fenced"),): 0.5}


def test_a_model_call_counts_its_tokens_by_type() -> None:
    meters = Meters()
    usage = Usage(provider="openai", model="gpt", input_tokens=7, output_tokens=3)

    meters.metrics.model_called("openai/gpt", 1.5, first_chunk_s=0.25, usage=usage, error=None)

    by_type = {
        dict(labels)["gen_ai.token.type"]: value for labels, value in meters.sums(names.TOKEN_USAGE.name).items()
    }
    assert by_type == {"input": 7, "output": 3}
    assert list(meters.sums(names.TIME_TO_FIRST_CHUNK.name).values()) == [0.25]
    (labels,) = meters.sums(names.MODEL_DURATION.name)
    assert dict(labels) == {
        "gen_ai.operation.name": "chat",
        "gen_ai.provider.name": "openai",
        "gen_ai.request.model": "gpt",
        "gen_ai.response.model": "gpt",
    }


@pytest.mark.parametrize(
    ("asked", "usage", "labels"),
    [
        # A router's model has a slash in it: spans said openrouter, measurements openrouter/anthropic.
        ("openrouter/anthropic/claude", None, ("openrouter", "anthropic/claude", None)),
        ("google/gemini", None, ("gcp.gemini", "gemini", None)),
        (
            "openai/gpt",
            Usage(provider="openai", model="gpt-2026", input_tokens=1, output_tokens=1),
            ("openai", "gpt", "gpt-2026"),
        ),
        (None, Usage(provider="xai", model="grok", input_tokens=1, output_tokens=1), ("x_ai", "grok", "grok")),
        (None, None, ("_OTHER", "", None)),
    ],
)
def test_a_model_call_is_labelled_as_its_span_is(
    asked: str | None, usage: Usage | None, labels: tuple[str, str, str | None]
) -> None:
    meters = Meters()
    meters.metrics.model_called(asked, 1.0, first_chunk_s=None, usage=usage, error=None)
    (found,) = map(dict, meters.sums(names.MODEL_DURATION.name))
    assert (
        found["gen_ai.provider.name"],
        found["gen_ai.request.model"],
        found.get("gen_ai.response.model"),
    ) == labels


def test_the_calls_of_a_run_are_measured_also_where_nobody_traces_it() -> None:
    meters = Meters()
    tools: list[JsonValue] = [{"name": "bash", "duration_ms": 40}]
    played = play(Scene(options={"tools": tools}, tools=("bash",), metrics=meters.metrics))
    assert played.result.status == "completed"
    counted = {
        dict(labels)["gen_ai.operation.name"]: n for labels, n in meters.counts(names.MODEL_DURATION.name).items()
    }
    assert counted == {"chat": 2, "execute_tool": 1}


def test_a_tool_that_the_model_made_up_has_no_series_of_its_own() -> None:
    meters = Meters()
    calls = CallMetrics(meters.metrics, "p/m", ("bash",))
    now = datetime.now(UTC)
    for number, tool in enumerate(("bash", "made_up", "another", "bash")):
        calls.saw(ToolStarted(tool_call_id=str(number), tool_name=tool, arguments={}), now)
        calls.saw(
            ToolEnded(tool_call_id=str(number), tool_name=tool, content="", is_error=tool != "bash", duration_ms=1), now
        )
    counted = {
        dict(labels)["gen_ai.tool.name"]: count for labels, count in meters.counts(names.MODEL_DURATION.name).items()
    }
    assert counted == {"bash": 2, "_OTHER": 2}


def test_a_takeover_voids_the_attempts_that_were_lost() -> None:
    meters = Meters()

    meters.metrics.claimed(taken_over=True, lost=3)
    meters.metrics.claimed(taken_over=False, lost=0)
    meters.metrics.retried("rate_limited")
    meters.metrics.drained()

    assert meters.sums("agentstream.claims") == {(): 2}
    assert meters.sums("agentstream.takeovers") == {(): 1}
    assert meters.sums("agentstream.attempts.voided") == {
        (("agentstream.reason", "takeover"),): 3,
        (("agentstream.reason", "retry"),): 1,
        (("agentstream.reason", "draining"),): 1,
    }


def test_durations_are_learned_by_harness_and_model_and_guessed_from_all_where_unknown() -> None:
    durations = Durations()
    assert durations.expected("pi", "m") == 0.0
    for _ in range(100):
        durations.learn("pi", "slow", 10.0)
        durations.learn("scripted", None, 1.0)

    assert durations.expected("pi", "slow") == 10.0
    assert durations.expected("scripted", None) == 1.0
    assert 1.0 < durations.expected("pi", "never seen") < 10.0


def test_what_callers_may_name_does_not_grow_what_is_learned_without_bound() -> None:
    durations = Durations()
    for number in range(10 * MAX_KINDS):
        durations.learn("pi", f"model-{number}", 1.0)

    assert len(durations._means) == MAX_KINDS


def test_more_partitions_than_a_backend_wants_labels_for_are_summed_up() -> None:
    many = names.MAX_PARTITION_LABELS + 5

    found = _bounded((number, 1) for number in range(many))

    assert len(found) == names.MAX_PARTITION_LABELS + 1
    assert found[names.OTHER_PARTITIONS] == 5


def test_every_name_is_there_once_and_prometheus_has_it_with_its_unit() -> None:
    assert len({metric.name for metric in names.ALL}) == len(names.ALL) > 20
    assert names.WORK_WAITING.prometheus == "agentstream_work_waiting_seconds"
    assert names.RUNS.prometheus == "agentstream_runs_total"
    assert names.HELD_BYTES.prometheus == "agentstream_held_bytes"


def test_what_alarms_watch_begins_at_zero() -> None:
    """An increase is seen between two values: of a counter that begins with its first event none is."""
    meters = Meters()

    assert meters.series("agentstream.takeovers") == {()}
    assert len(meters.series("agentstream.attempts.voided")) == 4
    assert (("agentstream.run.status", "failed"), ("error.type", "crash_limit")) in meters.series("agentstream.runs")
