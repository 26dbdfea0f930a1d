"""No file and no request can make admission raise, and nothing is allowed that the worker does not allow."""

import json
from dataclasses import asdict
from pathlib import Path
from tempfile import TemporaryDirectory

from hypothesis import given
from hypothesis import strategies as st

from agentstream.consumers.agent_config import DEFAULT_LIMITS, NotAdmitted, WorkerAgentConfig, admit, findings
from agentstream.consumers.agent_files import AgentFiles, read_agent_files
from agentstream.consumers.harness.scripted import ScriptedHarness
from agentstream.schemas.messages import Message
from agentstream.schemas.requests import AgentParameters, HarnessChoice, InvokeRequest, Limits, Retry

names = st.sampled_from(["bash", "read", "rm", "scripted", "pi", "zap", "openai/x", "low", "full"])
leaves = st.none() | st.booleans() | st.integers(-5, 10**12) | st.floats() | st.text(max_size=5) | names
values = st.recursive(leaves, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(names, inner, max_size=3))
fields = st.sampled_from([*AgentParameters.model_fields, "other"])
limits = st.dictionaries(st.sampled_from([*Limits.model_fields, "other"]), leaves)
harness = st.fixed_dictionaries({"kind": names}, optional={"options": st.dictionaries(names, values)})
objects = st.fixed_dictionaries({}, optional={"limits": limits | values, "harness": harness | values}).flatmap(
    lambda known: st.dictionaries(fields, values).map(lambda rest: {**rest, **known})
)
TOOLS = frozenset({"bash", "read"})


def config(files: AgentFiles) -> WorkerAgentConfig:
    return WorkerAgentConfig(harnesses={"scripted": ScriptedHarness()}, tools=TOOLS, files=files)


def written(text: str) -> AgentFiles:
    with TemporaryDirectory() as directory:
        (Path(directory) / "agent.json").write_text(text, "utf-8")
        return read_agent_files(Path(directory))


def request(parameters: AgentParameters | None = None) -> InvokeRequest:
    return InvokeRequest(messages=(Message.of_text("user", "hi"),), parameters=parameters or AgentParameters())


@given(objects | values)
def test_any_agent_json_leaves_requests_alone(content: object) -> None:
    own = config(written(json.dumps(content)))
    findings(own)
    resolved = admit(request(), own)
    assert not isinstance(resolved, NotAdmitted)
    assert resolved.choice.kind == "scripted"
    assert set(resolved.tools) <= TOOLS
    assert all(asdict(resolved.limits)[name] <= bound for name, bound in asdict(DEFAULT_LIMITS).items())
    assert resolved == admit(request(AgentParameters(model=None)), own), "what is asked for nothing is worked out once"
    is_as_if_checked(resolved.to_wire())


def is_as_if_checked(wire: AgentParameters) -> None:
    """It is made without pydantic's checks."""
    checked = AgentParameters.model_validate(wire.model_dump())
    assert checked == wire
    assert checked.to_bytes() == wire.to_bytes()


@given(st.text(max_size=30))
def test_any_text_in_agent_json_leaves_requests_alone(text: str) -> None:
    assert not isinstance(admit(request(), config(written(text))), NotAdmitted)


asked_limits = st.builds(Limits, **{name: st.none() | st.integers(1, 20) for name in Limits.model_fields})
choices = st.builds(
    HarnessChoice, kind=st.sampled_from(["scripted", "pi", "zap"]), options=st.dictionaries(names, values)
)


@given(
    st.builds(
        AgentParameters,
        harness=st.none() | choices,
        tools=st.none() | st.lists(st.sampled_from(["bash", "read", "rm"]), max_size=4).map(tuple),
        limits=st.none() | asked_limits,
        agents_md=st.none() | st.text(max_size=9) | st.just("é" * 5_000),
        retry=st.none() | st.builds(Retry, base_ms=st.none() | st.integers(0, 10**6)),
        model=st.none() | st.just("openai/x"),
    )
)
def test_whatever_is_admitted_is_allowed(parameters: AgentParameters) -> None:
    resolved = admit(request(parameters), config(AgentFiles()))
    if isinstance(resolved, NotAdmitted):
        return
    assert resolved.choice.kind == "scripted"
    assert set(resolved.tools) <= TOOLS
    for name, bound in asdict(DEFAULT_LIMITS).items():
        wanted = getattr(parameters.limits, name, None) or bound
        assert asdict(resolved.limits)[name] == min(bound, wanted)
    is_as_if_checked(resolved.to_wire())
