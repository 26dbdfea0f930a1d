"""Variables that would be misread are told, and only these: checked against what the SDK makes of them."""

import pytest
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.sampling import DEFAULT_ON
from opentelemetry.util.re import parse_env_headers

from agentstream.infra.telemetry.misread import misread, refused
from tests.support.otel import set_otel

ALWAYS_ON = str(DEFAULT_ON.get_description())  # type: ignore[no-untyped-call]
EVERY_TRACE = "ParentBased{root:TraceIdRatioBased{1.0},"


@pytest.mark.parametrize(
    ("sampler", "ratio", "line", "effect"),
    [
        (None, None, None, ALWAYS_ON),
        ("", None, None, ALWAYS_ON),
        ("Parentbased_Always_On", None, None, ALWAYS_ON),
        ("parentbased_traceidratio", "0.25", None, "ParentBased{root:TraceIdRatioBased{0.25},"),
        ("always_off", "", None, "AlwaysOffSampler"),
        ("jaeger_remote", "endpoint=x", "OTEL_TRACES_SAMPLER: there is no sampler `jaeger_remote`", ALWAYS_ON),
        (" always_off", None, "OTEL_TRACES_SAMPLER: there is no sampler ` always_off`", ALWAYS_ON),
        ("parentbased_traceidratio", None, "OTEL_TRACES_SAMPLER_ARG: must be a number from 0 to 1", EVERY_TRACE),
        ("parentbased_traceidratio", "25", "OTEL_TRACES_SAMPLER_ARG: must be a number from 0 to 1", EVERY_TRACE),
        ("parentbased_traceidratio", "nan", "OTEL_TRACES_SAMPLER_ARG: must be a number from 0 to 1", EVERY_TRACE),
        ("parentbased_traceidratio", "10%", "OTEL_TRACES_SAMPLER_ARG: must be a number from 0 to 1", EVERY_TRACE),
        (None, "0.1", "OTEL_TRACES_SAMPLER_ARG: has no effect without", ALWAYS_ON),
        ("always_on", "0.1", "OTEL_TRACES_SAMPLER_ARG: has no effect without", "AlwaysOnSampler"),
    ],
)
def test_a_sampler_that_is_not_the_one_that_was_meant_is_told(
    monkeypatch: pytest.MonkeyPatch, sampler: str | None, ratio: str | None, line: str | None, effect: str
) -> None:
    given = {"OTEL_TRACES_SAMPLER": sampler, "OTEL_TRACES_SAMPLER_ARG": ratio}
    variables = {name: value for name, value in given.items() if value is not None}
    set_otel(monkeypatch, None, **variables)
    provider = TracerProvider(shutdown_on_exit=False)
    assert provider.sampler.get_description().startswith(effect)
    said = list(misread(variables))
    assert len(said) == (line is not None)
    assert all(each.startswith(line or "") for each in said)


@pytest.mark.parametrize(
    "shape", ["{}", "a{}", "a{}b=c", "{}a=c", "a=b{}c", "a={}", "a={} b", "a=b={}", "first=y,{}=b"]
)
def test_headers_are_told_if_the_exporter_leaves_one_out_and_only_then(shape: str) -> None:
    for character in map(chr, range(0x200)):
        text = shape.format(character)
        kept = parse_env_headers(text, liberal=True)
        wanted = [part for part in text.split(",") if part.strip()]
        said = list(misread({"OTEL_EXPORTER_OTLP_HEADERS": text}))
        assert len(said) == (len(kept) < len(wanted)), text


@pytest.mark.parametrize(
    ("name", "fine", "wrong", "line"),
    [
        ("OTEL_PROPAGATORS", ("", "baggage, tracecontext"), ("b3", "none", "tracecontext"), "has no effect here"),
        ("OTEL_SDK_DISABLED", ("", "TRUE", "false"), ("1", "yes"), "only `true` switches telemetry off"),
        ("OTEL_RESOURCE_ATTRIBUTES", ("", "a=b,c=", "a=b,"), ("team", "a=b,team"), "a part is not and is left out"),
        ("OTEL_EXPORTER_OTLP_TRACES_TIMEOUT", ("", "2.5"), ("5s", "-1"), "10 takes effect"),
        ("OTEL_EXPORTER_OTLP_COMPRESSION", ("", "GZIP"), ("zstd",), "none takes effect"),
    ],
)
def test_a_variable_that_cannot_be_used_is_one_line_that_says_what_happens(
    name: str, fine: tuple[str, ...], wrong: tuple[str, ...], line: str
) -> None:
    assert [list(misread({name: value})) for value in fine] == [[]] * len(fine)
    for value in wrong:
        (said,) = misread({name: value})
        assert said.startswith(f"{name}: ")
        assert line in said


def test_a_limit_that_is_told_is_one_that_the_sdk_refuses(monkeypatch: pytest.MonkeyPatch) -> None:
    name = "OTEL_SPAN_EVENT_COUNT_LIMIT"
    for value in ("", "0", " 12 "):
        set_otel(monkeypatch, None, **{name: value})
        TracerProvider(shutdown_on_exit=False)
        assert list(refused({name: value})) == []
    for value in ("-1", "none", "many"):
        set_otel(monkeypatch, None, **{name: value})
        with pytest.raises(ValueError, match=name):
            TracerProvider(shutdown_on_exit=False)
        assert list(refused({name: value})) == [
            f"{name}: must be a whole number, or empty for no limit; spans are not exported"
        ]
