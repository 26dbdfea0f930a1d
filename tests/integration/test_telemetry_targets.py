"""Spans of requests that name a place of their own: which of them go where, and with whose key."""

import asyncio
from collections.abc import Iterator

import pytest
from opentelemetry.trace import set_span_in_context

from agentstream.infra.connection import trace_targets
from agentstream.infra.settings import Settings, TraceTargetSettings
from agentstream.infra.settings_file import SettingsError
from agentstream.infra.telemetry.environment import TraceTarget, telemetry_settings
from agentstream.infra.telemetry.opening import Telemetry, open_telemetry
from tests.support.otel import set_otel, span
from tests.support.otlp_receiver import Manner, OtlpReceiver, otlp_receiver

MINE, THEIRS = "Bearer operators-key-0123", "Bearer tenants-key-0123"


@pytest.fixture
def tenant() -> Iterator[OtlpReceiver]:
    with otlp_receiver() as receiver:
        yield receiver


def target(of: OtlpReceiver, *, exclusive: bool = False) -> TraceTarget:
    return TraceTarget(
        endpoint=f"{of.endpoint}/v1/traces", headers={"authorization": THEIRS, "x-p": "1"}, exclusive=exclusive
    )


def run(telemetry: Telemetry, name: str, target_name: str | None) -> None:
    """A tree of three: the target is named by its root alone."""
    tracer = telemetry.tracer_provider.get_tracer("tests")
    attributes = {} if target_name is None else {"agentstream.trace_target": target_name}
    root = tracer.start_span(f"{name} process", attributes=attributes)
    middle = tracer.start_span(f"{name} agent", set_span_in_context(root))
    tracer.start_span(f"{name} chat", set_span_in_context(middle)).end()
    middle.end()
    root.end()


def names(receiver: OtlpReceiver) -> set[str]:
    return {each.name for each in receiver.spans}


def tree(name: str) -> set[str]:
    return {f"{name} process", f"{name} agent", f"{name} chat"}


async def test_a_run_that_names_a_target_is_seen_there_whole_and_at_the_operators_too(
    receiver: OtlpReceiver, tenant: OtlpReceiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    set_otel(monkeypatch, receiver, OTEL_METRICS_EXPORTER="none")
    async with open_telemetry(telemetry_settings(), targets={"tenant": target(tenant)}) as telemetry:
        run(telemetry, "a", "tenant")
        run(telemetry, "b", None)
        run(telemetry, "c", "nobody")
    assert names(tenant) == tree("a")
    assert names(receiver) == tree("a") | tree("b") | tree("c")
    assert telemetry.losses["tenant"].exported == 3


async def test_an_exclusive_target_keeps_its_spans_from_the_operators_endpoint(
    receiver: OtlpReceiver, tenant: OtlpReceiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    set_otel(monkeypatch, receiver, OTEL_METRICS_EXPORTER="none")
    targets = {"tenant": target(tenant, exclusive=True)}
    async with open_telemetry(telemetry_settings(), targets=targets) as telemetry:
        run(telemetry, "a", "tenant")
        run(telemetry, "b", None)
    assert (names(tenant), names(receiver)) == (tree("a"), tree("b"))


async def test_the_operators_key_never_reaches_a_target_nor_the_targets_key_the_operator(
    receiver: OtlpReceiver, tenant: OtlpReceiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    headers = {"OTEL_EXPORTER_OTLP_HEADERS": f"authorization={MINE.replace(' ', '%20')},x-operator=secret-of-ours"}
    set_otel(monkeypatch, receiver, OTEL_METRICS_EXPORTER="none", **headers)
    async with open_telemetry(telemetry_settings(), targets={"tenant": target(tenant)}) as telemetry:
        run(telemetry, "a", "tenant")
    (there,), (here,) = tenant.requests, receiver.requests
    assert (there.headers["authorization"], there.headers["x-p"]) == (THEIRS, "1")
    assert "x-operator" not in there.headers
    assert there.headers["content-type"] == "application/x-protobuf"
    assert here.headers["authorization"] == MINE
    assert "x-p" not in here.headers


async def test_a_target_that_hangs_holds_up_nobody_else(
    receiver: OtlpReceiver, tenant: OtlpReceiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    set_otel(monkeypatch, receiver, OTEL_METRICS_EXPORTER="none", OTEL_BSP_SCHEDULE_DELAY="3600000")
    tenant.manner = Manner(hang=True)
    async with open_telemetry(telemetry_settings(), targets={"tenant": target(tenant)}) as telemetry:
        run(telemetry, "a", "tenant")
        telemetry.flush()
        await receiver.until(lambda: tenant.hanging == 1, "the target hangs")
        span(telemetry, "b")
        telemetry.flush()
        await receiver.until(lambda: "b" in names(receiver), "the operator sees it")
        assert (tenant.hanging, names(tenant)) == (1, set())
        tenant.release()
    assert names(tenant) == tree("a")


async def test_targets_need_no_endpoint_of_the_operators(tenant: OtlpReceiver, monkeypatch: pytest.MonkeyPatch) -> None:
    set_otel(monkeypatch, None)
    async with open_telemetry(telemetry_settings(), targets={"tenant": target(tenant)}) as telemetry:
        await asyncio.gather(
            *(asyncio.to_thread(run, telemetry, f"r{n}", "tenant" if n % 2 else None) for n in range(9))
        )
    assert names(tenant) == tree("r1") | tree("r3") | tree("r5") | tree("r7")


def test_a_target_in_the_settings_has_a_whole_url_and_its_header_from_a_variable(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("TENANT_KEY", THEIRS)
    places = {
        "a": TraceTargetSettings(endpoint="https://one.example/otel/", authorization_env="TENANT_KEY"),
        "b": TraceTargetSettings.model_validate(
            {"endpoint": "https://two.example/v1/traces", "headers": {"X-Key": "k"}, "exclusive": True}
        ),
    }
    assert trace_targets(Settings(trace_targets=places)) == {
        "a": TraceTarget(endpoint="https://one.example/otel/v1/traces", headers={"authorization": THEIRS}),
        "b": TraceTarget(endpoint="https://two.example/v1/traces", headers={"x-key": "k"}, exclusive=True),
    }


def test_a_target_whose_variable_is_not_set_is_refused() -> None:
    place = TraceTargetSettings(endpoint="https://one.example", authorization_env="NOT_SET_ANYWHERE")
    with pytest.raises(SettingsError, match=r"NOT_SET_ANYWHERE: is not set, and trace_targets\.a is to send it"):
        trace_targets(Settings(trace_targets={"a": place}))
