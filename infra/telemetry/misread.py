"""Variables that the SDK and the exporters read by themselves, and would misread: one line each says what happens.

Their own lines are not shown: some quote a header, key and all.
"""

import re
from collections.abc import Iterator, Mapping
from typing import Final

_HEADERS: Final = (
    "OTEL_EXPORTER_OTLP_HEADERS",
    "OTEL_EXPORTER_OTLP_TRACES_HEADERS",
    "OTEL_EXPORTER_OTLP_METRICS_HEADERS",
)
# As opentelemetry.util.re takes them; in its words "liberal".
_HEADER: Final = re.compile(
    r"[\x21\x23-\x27\x2a\x2b\x2d\x2e\x30-\x39\x41-\x5a\x5e-\x7a\x7c\x7e]+[ \t]*="
    r"[ \t]*[\x20\x21\x23-\x2b\x2d-\x3a\x3c-\x5b\x5d-\x7e]*"
)
_BY_RATIO: Final = ("traceidratio", "parentbased_traceidratio")
_SAMPLERS: Final = ("always_on", "always_off", "parentbased_always_on", "parentbased_always_off", *_BY_RATIO)
_SPOKEN: Final = {"tracecontext", "baggage"}
_LIMITS: Final = (
    "OTEL_ATTRIBUTE_COUNT_LIMIT",
    "OTEL_ATTRIBUTE_VALUE_LENGTH_LIMIT",
    "OTEL_EVENT_ATTRIBUTE_COUNT_LIMIT",
    "OTEL_LINK_ATTRIBUTE_COUNT_LIMIT",
    "OTEL_SPAN_ATTRIBUTE_COUNT_LIMIT",
    "OTEL_SPAN_ATTRIBUTE_VALUE_LENGTH_LIMIT",
    "OTEL_SPAN_EVENT_COUNT_LIMIT",
    "OTEL_SPAN_LINK_COUNT_LIMIT",
)


def misread(variables: Mapping[str, str]) -> Iterator[str]:
    """Yield a line for each variable that does not do what its value says. None holds a value that may be secret."""
    yield from _exporters(variables)
    yield from _headers(variables)
    yield from _sampler(variables)
    yield from _rest(variables)


def refused(variables: Mapping[str, str]) -> Iterator[str]:
    """Yield a line for each variable that the SDK raises for. For doctor: a worker that opens it says so itself."""
    for name in _LIMITS:
        limit = variables.get(name, "").strip()
        if limit and not limit.isdecimal():
            yield f"{name}: must be a whole number, or empty for no limit; spans are not exported"


def header_variables(variables: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    """Yield name and value of those that hold headers, where they hold any."""
    return ((name, variables[name]) for name in _HEADERS if variables.get(name))


def _exporters(variables: Mapping[str, str]) -> Iterator[str]:
    for signal in ("", "TRACES_", "METRICS_"):
        name = f"OTEL_EXPORTER_OTLP_{signal}COMPRESSION"
        if variables.get(name, "").strip().lower() not in ("", "none", "gzip", "deflate"):
            yield f"{name}: must be gzip, deflate or none; none takes effect"
        name = f"OTEL_EXPORTER_OTLP_{signal}TIMEOUT"
        if not re.fullmatch(r"\s*(\d+(\.\d*)?|\.\d+)?\s*", variables.get(name, "")):
            yield f"{name}: must be a number of seconds; 10 takes effect"


def _headers(variables: Mapping[str, str]) -> Iterator[str]:
    for name, text in header_variables(variables):
        if any(part.strip() and not _HEADER.fullmatch(part.strip()) for part in text.split(",")):
            yield (
                f"{name}: must be name=value, several separated by commas, other characters as %3B; "
                "a part is not and is left out"
            )


def _sampler(variables: Mapping[str, str]) -> Iterator[str]:
    sampler, ratio = variables.get("OTEL_TRACES_SAMPLER", ""), variables.get("OTEL_TRACES_SAMPLER_ARG")
    if sampler and sampler.lower() not in _SAMPLERS:
        yield (
            f"OTEL_TRACES_SAMPLER: there is no sampler `{sampler}`: use {', '.join(_SAMPLERS)}; "
            "parentbased_always_on takes effect"
        )
    elif sampler.lower() not in _BY_RATIO:
        if ratio:
            yield f"OTEL_TRACES_SAMPLER_ARG: has no effect without OTEL_TRACES_SAMPLER={' or '.join(_BY_RATIO)}"
    elif not _is_ratio(ratio or ""):
        yield "OTEL_TRACES_SAMPLER_ARG: must be a number from 0 to 1; 1 takes effect: every trace is kept"


def _is_ratio(text: str) -> bool:
    try:
        return 0.0 <= float(text) <= 1.0
    except ValueError:
        return False


def _rest(variables: Mapping[str, str]) -> Iterator[str]:
    propagators = {each.strip().lower() for each in variables.get("OTEL_PROPAGATORS", "").split(",") if each.strip()}
    if propagators and propagators != _SPOKEN:
        yield "OTEL_PROPAGATORS: has no effect here; tracecontext and baggage are read and written, nothing else"
    if (disabled := variables.get("OTEL_SDK_DISABLED", "").strip().lower()) not in ("", "true", "false"):
        yield f"OTEL_SDK_DISABLED: only `true` switches telemetry off, `{disabled}` does not"
    attributes = variables.get("OTEL_RESOURCE_ATTRIBUTES", "")
    if any(part.strip() and "=" not in part for part in attributes.split(",")):
        yield "OTEL_RESOURCE_ATTRIBUTES: must be name=value, several separated by commas; a part is not and is left out"
