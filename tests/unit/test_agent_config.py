"""What an agent runs with: request over files over constants; what is refused, and what fails."""

import json
from dataclasses import asdict, replace

import pytest
from pydantic import JsonValue

from agentstream.consumers.agent_config import DEFAULT_LIMITS, NotAdmitted, WorkerAgentConfig, admit, findings
from agentstream.consumers.agent_files import AgentFiles
from agentstream.consumers.effective import MAX_ECHO_BYTES, EffectiveParameters
from agentstream.consumers.harness.port import Credentials
from agentstream.consumers.harness.scripted import ScriptedHarness
from agentstream.schemas import defaults
from agentstream.schemas.errors import ErrorCode, Stage
from agentstream.schemas.requests import AgentParameters, InvokeRequest, Limits

KEY = Credentials(name="main", provider="openai", api_key="sk-canary-123456")
OTHER = Credentials(name="other", provider="anthropic", api_key="sk-canary-654321")
GATEWAY = Credentials(name="gateway", provider="openai", api_key="sk-canary-999999", base_url="http://127.0.0.1/v1")


def config(**changed: object) -> WorkerAgentConfig:
    own = WorkerAgentConfig(
        harnesses={"scripted": ScriptedHarness()},
        tools=frozenset({"bash", "read"}),
        credentials={each.name: each for each in (KEY, OTHER, GATEWAY)},
    )
    return replace(own, **changed)  # type: ignore[arg-type]


def files(**parameters: JsonValue) -> AgentFiles:
    return AgentFiles(agents_md="from AGENTS.md", parameters=AgentParameters.model_validate(parameters))


def ask(own: WorkerAgentConfig | None = None, **parameters: JsonValue) -> EffectiveParameters | NotAdmitted:
    request = InvokeRequest.model_validate({"messages": [{"role": "user", "content": "hi"}], "parameters": parameters})
    return admit(request, own or config())


def resolve(own: WorkerAgentConfig | None = None, **parameters: JsonValue) -> EffectiveParameters:
    resolved = ask(own, **parameters)
    assert isinstance(resolved, EffectiveParameters), resolved
    return resolved


def refusal(own: WorkerAgentConfig | None = None, **parameters: JsonValue) -> tuple[ErrorCode, str]:
    refused = ask(own, **parameters)
    assert isinstance(refused, NotAdmitted), refused
    assert refused.problem.stage is Stage.ADMIT
    return refused.problem.code, refused.problem.detail or ""


def test_without_anything_the_constants_take_effect() -> None:
    resolved = resolve()
    assert asdict(resolved.limits) == dict(defaults.LIMITS)
    assert (resolved.tools, resolved.thinking, resolved.stream, resolved.agents_md) == ((), "off", "full", "")
    assert (resolved.model, resolved.credentials, resolved.problem) == (None, None, None)


def test_requests_that_ask_for_nothing_share_what_they_run_with() -> None:
    own = config(files=files(model="openai/a", tools=["bash"]))
    assert resolve(own) is resolve(own)
    assert resolve(own).to_wire() is resolve(own).to_wire()
    assert replace(resolve(own), tools=()).to_wire().tools == ()
    resumed = InvokeRequest.model_validate({"messages": [{"role": "user", "content": "hi"}], "resume": {"x": 1}})
    assert isinstance(admit(resumed, own), NotAdmitted)


def test_files_come_before_constants_and_the_request_before_files() -> None:
    own = config(files=files(model="openai/a", tools=["bash"], thinking="low", stream="none"))
    assert resolve(own).model == "openai/a"
    assert (resolve(own).tools, resolve(own).thinking, resolve(own).stream) == (("bash",), "low", "none")
    assert resolve(own).agents_md == "from AGENTS.md"
    asked = resolve(own, model="anthropic/b", tools=["read"], thinking="high", stream="events", agents_md="mine")
    assert (asked.model, asked.tools, asked.thinking, asked.stream) == ("anthropic/b", ("read",), "high", "events")
    assert asked.agents_md == "mine"


def test_an_empty_value_in_a_request_is_a_value() -> None:
    own = config(files=files(tools=["bash"]))
    assert (resolve(own, tools=[], agents_md="").tools, resolve(own, agents_md="").agents_md) == ((), "")


def test_limits_can_only_be_lowered() -> None:
    own = config(limits=replace(DEFAULT_LIMITS, total_ms=5_000, max_turns=10), files=files(limits={"max_turns": 8}))
    assert resolve(own, limits={"total_ms": 9_000, "max_turns": 9}).limits.total_ms == 5_000
    assert resolve(own, limits={"max_turns": 9}).limits.max_turns == 8
    lowered = resolve(own, limits={"total_ms": 4_000, "max_turns": 2}).limits
    assert (lowered.total_ms, lowered.max_turns, lowered.idle_ms) == (4_000, 2, DEFAULT_LIMITS.idle_ms)


def test_limits_that_no_result_could_hold_are_refused_at_start() -> None:
    with pytest.raises(ValueError, match="max_attempts"):
        config(limits=replace(DEFAULT_LIMITS, max_attempts=0))
    with pytest.raises(ValueError, match="harness"):
        config(harnesses={})


def test_a_harness_is_unknown_or_not_allowed() -> None:
    assert refusal(harness={"kind": "zap"})[0] is ErrorCode.UNKNOWN_HARNESS
    code, detail = refusal(harness={"kind": "pi"})
    assert code is ErrorCode.HARNESS_NOT_ALLOWED
    assert detail == "`pi`; allowed here: scripted"


def test_options_that_the_harness_does_not_take_are_refused() -> None:
    code, detail = refusal(harness={"kind": "scripted", "options": {"delay_ms": "soon"}})
    assert code is ErrorCode.SCHEMA_INVALID
    assert detail.startswith("parameters.harness.options: delay_ms: ")
    assert resolve(harness={"kind": "scripted", "options": {"delay_ms": 5}}).choice.options == {"delay_ms": 5}


def test_a_tool_must_be_allowed_and_is_taken_once() -> None:
    assert refusal(tools=["bash", "rm"]) == (ErrorCode.TOOL_NOT_ALLOWED, "rm; allowed here: bash, read")
    assert resolve(tools=["read", "bash", "read"]).tools == ("read", "bash")


def test_resume_is_reserved() -> None:
    request = InvokeRequest.model_validate({"messages": [{"role": "user", "content": "hi"}], "resume": {}})
    refused = admit(request, config())
    assert isinstance(refused, NotAdmitted)
    assert refused.problem.code is ErrorCode.UNSUPPORTED


def test_credentials_are_those_named_or_those_of_the_models_provider() -> None:
    assert resolve(model="anthropic/x").credentials is OTHER
    assert resolve(model="anthropic/x", credentials="other").credentials is OTHER
    assert resolve(model="nobody/x").credentials is None
    assert resolve(config(files=files(credentials="gateway")), model="openai/x").credentials is GATEWAY


def test_missing_credentials_fail_the_run_and_refuse_nothing() -> None:
    problem = resolve(model="openai/x", credentials="nope").problem
    assert problem is not None
    assert (problem.code, problem.stage) == (ErrorCode.PROVIDER_AUTH, Stage.MODEL)
    assert problem.detail == "this worker has no credentials named `nope`"


def test_a_key_is_never_sent_to_another_provider_unless_a_gateway_takes_it() -> None:
    problem = resolve(model="anthropic/x", credentials="main").problem
    assert problem is not None
    assert problem.code is ErrorCode.PROVIDER_AUTH
    assert resolve(model="anthropic/x", credentials="gateway").credentials is GATEWAY


def test_the_result_repeats_the_parameters_without_secrets() -> None:
    resolved = resolve(model="openai/x", tools=["bash"], agents_md="Be brief.")
    wire = resolved.to_wire()
    assert (wire.model, wire.tools, wire.agents_md, wire.credentials) == ("openai/x", ("bash",), "Be brief.", "main")
    assert wire.limits == Limits(**asdict(resolved.limits))
    assert "canary" not in repr(resolved) + wire.model_dump_json()


def test_the_result_repeats_only_the_beginning_of_long_parameters() -> None:
    resolved = resolve(agents_md="ü" * 200_000, harness={"kind": "scripted", "options": {"text": "x" * 50_000}})
    wire = resolved.to_wire()
    assert wire.agents_md is not None
    assert wire.agents_md.startswith("üüü")
    assert "400000 bytes, sha256:" in wire.agents_md
    assert len(wire.agents_md.encode()) <= MAX_ECHO_BYTES
    assert wire.harness is not None
    assert list(wire.harness.options) == ["cut"]
    assert len(wire.to_bytes()) < 6_000


@pytest.mark.parametrize("text", ["x", "é", "😀", '"', "'", "\\", "\n", "\0", "\u2028"])
def test_options_are_repeated_as_long_as_they_fit_whatever_they_are_made_of(text: str) -> None:
    def size(count: int) -> int:
        return len(json.dumps({"text": text * count}, ensure_ascii=False).encode())

    most = max(count for count in range(MAX_ECHO_BYTES) if size(count) <= MAX_ECHO_BYTES)
    for count in (1, most // 4, most // 2, most, most + 1):
        options: JsonValue = {"text": text * count}
        wire = resolve(harness={"kind": "scripted", "options": options}).to_wire()
        assert wire.harness is not None
        assert (wire.harness.options == options) is (count <= most)


def test_files_that_do_not_fit_the_settings_are_findings_and_break_no_request() -> None:
    own = config(
        files=files(
            harness={"kind": "pi"},
            tools=["rm", "bash"],
            credentials="nope",
            limits={"max_turns": 10_000},
            model="openai/x",
        )
    )
    resolved = resolve(own)
    assert (resolved.choice.kind, resolved.tools, resolved.credentials) == ("scripted", ("bash",), KEY)
    assert resolved.limits.max_turns == DEFAULT_LIMITS.max_turns
    assert [finding.field for finding in findings(own)] == ["harness", "tools", "credentials", "limits.max_turns"]
    assert str(findings(own)[1]) == "agent.json: tools: not allowed by the settings: rm; they are left out"


def test_options_in_files_that_the_harness_does_not_take_break_no_request() -> None:
    own = config(files=files(harness={"kind": "scripted", "options": {"txt": "typo"}}))
    assert resolve(own).choice.options == {}
    (finding,) = findings(own)
    assert finding.field == "harness"
    assert "txt" in finding.problem
