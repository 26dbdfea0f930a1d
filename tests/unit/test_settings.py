import os
import re
from pathlib import Path

import pytest
from pydantic import ValidationError

from agentstream.infra.connection import named_credentials, redactor, run_limits, trace_targets
from agentstream.infra.harnesses import PI_TOOLS, check_kinds
from agentstream.infra.settings import KafkaSettings, LimitSettings, RetrySettings, Settings
from agentstream.infra.settings_file import SettingsError, load_settings, unknown_variables
from tests.architecture.sources import ROOT

CANARY = "canary-secret-0123456789"


@pytest.fixture(autouse=True)
def bare_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Start without settings, in a directory without a file."""
    for name in os.environ:
        if name.startswith(("AGENTSTREAM_", "KAFKA_", "OPENAI_", "ANTHROPIC_")):
            monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)


def write(text: str) -> Path:
    path = Path("agentstream.toml")
    path.write_text(text)
    return path


def test_without_any_settings_only_pi_is_allowed_and_no_tools() -> None:
    settings = load_settings()
    assert settings.harnesses == ("pi",)
    assert settings.tools == ()
    assert settings.agent_dir is None
    assert settings.kafka.bootstrap_servers is None


def test_the_environment_wins_over_the_file_and_a_command_line_option_over_both(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    write('model = "a/file"\ngroup_id = "file"\n[kafka]\nbootstrap_servers = "file:1"\nclient_id = "file"\n')
    monkeypatch.setenv("AGENTSTREAM_MODEL", "b/environment")
    monkeypatch.setenv("KAFKA_BOOTSTRAP_SERVERS", "environment:1")
    settings = load_settings(overrides={"tools": "bash, read"})
    assert (settings.model, settings.group_id, settings.tools) == ("b/environment", "file", ("bash", "read"))
    assert (settings.kafka.bootstrap_servers, settings.kafka.client_id) == ("environment:1", "file")
    monkeypatch.setenv("AGENTSTREAM_TOOLS", "write")
    assert load_settings(overrides={"tools": "bash"}).tools == ("bash",)


def test_an_empty_variable_is_as_good_as_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AGENTSTREAM_MODEL", "")
    monkeypatch.setenv("KAFKA_SECURITY_PROTOCOL", "")
    assert load_settings().model is None


def test_a_named_file_must_be_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AGENTSTREAM_CONFIG", "nowhere.toml")
    with pytest.raises(SettingsError, match=r"^nowhere\.toml: cannot be read .*AGENTSTREAM_CONFIG"):
        load_settings()


@pytest.mark.parametrize(
    ("variables", "line"),
    [
        ({"AGENTSTREAM_MAX_IN_FLIGHT": "many"}, r"^AGENTSTREAM_MAX_IN_FLIGHT \(.*\): must be a whole number"),
        ({"AGENTSTREAM_MAX_IN_FLIGHT": "0"}, r"^AGENTSTREAM_MAX_IN_FLIGHT \(.*\): must be greater"),
        ({"AGENTSTREAM_LIMITS_MAX_TURNS": "0"}, r"^AGENTSTREAM_LIMITS_MAX_TURNS \(limits\.max_turns in .*\): must be"),
        ({"AGENTSTREAM_MODEL": "gpt"}, r"^AGENTSTREAM_MODEL \(.*`provider/id`"),
        ({"AGENTSTREAM_TOPIC_PREFIX": "a b"}, r"^AGENTSTREAM_TOPIC_PREFIX"),
        ({"AGENTSTREAM_AGENT_DIR": "/nowhere/at/all"}, r"^AGENTSTREAM_AGENT_DIR \(.*must be an existing directory"),
        ({"AGENTSTREAM_HEARTBEAT_INTERVAL_MS": "14000"}, r"^AGENTSTREAM_HEARTBEAT_INTERVAL_MS must be at most a third"),
        ({"KAFKA_SECURITY_PROTOCOL": "TLS"}, r"^KAFKA_SECURITY_PROTOCOL \(.*must be 'PLAINTEXT'"),
        ({"KAFKA_SECURITY_PROTOCOL": "SASL_SSL"}, r"^PLAIN needs KAFKA_SASL_USERNAME and KAFKA_SASL_PASSWORD"),
        ({"KAFKA_SASL_USERNAME": "me"}, r"^KAFKA_SASL_USERNAME needs KAFKA_SECURITY_PROTOCOL"),
        (
            {"KAFKA_SECURITY_PROTOCOL": "SASL_SSL", "KAFKA_SASL_MECHANISM": "OAUTHBEARER"},
            r"^OAUTHBEARER needs KAFKA_SASL_OAUTH_TOKEN_FILE",
        ),
        ({"KAFKA_SSL_CAFILE": "/nowhere.pem"}, r"^KAFKA_SSL_CAFILE \(.*must be an existing file"),
    ],
)
def test_what_is_wrong_is_one_line_that_begins_with_the_variable(
    monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], line: str
) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(SettingsError, match=line) as caught:
        load_settings()
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ('modle = "a/b"', r"^modle in agentstream\.toml: is no setting"),
        ("[kafka]\nbootstrap = 1", r"^kafka\.bootstrap in agentstream\.toml: is no setting"),
        ("kafka = 1", r"^kafka in agentstream\.toml: must be a table"),
        ("model = ", r"^agentstream\.toml: is not TOML"),
        ('[credentials.me]\napi_key = "x"', r"^credentials\.me\.provider in agentstream\.toml: is required"),
        ("[credentials]\nme = 1", r"^me in agentstream\.toml: must be a table"),
        ('[credentials.me]\nprovider = "a"\ninput_price = 3.0', r"^credentials\.me\.input_price in"),
    ],
)
def test_a_mistake_in_the_file_is_named_with_its_place(text: str, line: str) -> None:
    write(text)
    with pytest.raises(SettingsError, match=line):
        load_settings()


def test_a_secret_stands_in_no_representation_and_no_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", CANARY)
    monkeypatch.setenv("KAFKA_SASL_PASSWORD", CANARY)
    monkeypatch.setenv("KAFKA_SASL_USERNAME", "me")
    with pytest.raises(SettingsError) as caught:
        load_settings()
    assert CANARY not in str(caught.value)
    monkeypatch.setenv("KAFKA_SECURITY_PROTOCOL", "SASL_PLAINTEXT")
    settings = load_settings()
    assert CANARY not in repr(settings) + str(settings.model_dump()) + repr(named_credentials(settings))
    assert redactor(settings).text(f"the key is {CANARY}") == "the key is [redacted]"


def test_settings_are_frozen() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        load_settings().model = "a/b"  # type: ignore[misc]


def test_a_providers_key_in_the_environment_makes_credentials_of_its_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "one")
    monkeypatch.setenv("OPENAI_BASE_URL", "http://proxy.example/v1")
    monkeypatch.setenv("ANTHROPIC_API_KEY", "two")
    credentials = named_credentials(load_settings())
    assert {name: (each.provider, each.api_key, each.base_url) for name, each in credentials.items()} == {
        "openai": ("openai", "one", "http://proxy.example/v1"),
        "anthropic": ("anthropic", "two", None),
    }


def test_the_file_names_more_credentials_and_where_their_key_is(monkeypatch: pytest.MonkeyPatch) -> None:
    write('[credentials.team]\nprovider = "openai"\napi_key_env = "TEAM_KEY"\ninput_price = "1.25"\n')
    with pytest.raises(SettingsError, match=r"^TEAM_KEY: is not set, and credentials.team"):
        named_credentials(load_settings())
    monkeypatch.setenv("TEAM_KEY", CANARY)
    settings = load_settings()
    assert named_credentials(settings)["team"].api_key == CANARY
    assert named_credentials(settings)["team"].input_price == "1.25"
    assert CANARY not in redactor(settings).text(CANARY)


def test_credentials_need_a_key_or_an_endpoint() -> None:
    write('[credentials.local]\nprovider = "local"\n')
    with pytest.raises(SettingsError, match=r"^credentials.local: need"):
        named_credentials(load_settings())
    write('[credentials.local]\nprovider = "local"\nbase_url = "http://localhost:1/v1"\n')
    assert named_credentials(load_settings())["local"].api_key == ""


def test_limits_come_from_the_environment_or_the_file(monkeypatch: pytest.MonkeyPatch) -> None:
    write("[limits]\nmax_turns = 3\ntotal_ms = 1000\n")
    monkeypatch.setenv("AGENTSTREAM_LIMITS_TOTAL_MS", "2000")
    limits = run_limits(load_settings())
    assert (limits.max_turns, limits.total_ms) == (3, 2_000)


def test_a_misspelt_variable_is_found() -> None:
    environment = {"AGENTSTREAM_HARNESES": "pi", "AGENTSTREAM_HARNESSES": "pi", "AGENTSTREAM_LIMITS_IDLE_MS": "1"}
    assert unknown_variables(environment | {"AGENTSTREAM_CONFIG": "x", "PATH": "y"}) == ("AGENTSTREAM_HARNESES",)


@pytest.mark.parametrize("name", ["AGENTSTREAM_CREDENTIALS", "AGENTSTREAM_TRACE_TARGETS", "AGENTSTREAM_KAFKA"])
def test_a_variable_named_as_a_table_of_the_file_is_said_to_have_no_effect(name: str) -> None:
    assert unknown_variables({name: "{}"}) == (name,)


def test_places_for_spans_stand_in_the_file_and_what_is_wrong_there_is_one_line_without_a_value() -> None:
    write(f'[trace_targets.tenant]\nendpoint = "https://one.example"\nauthorization = "{CANARY}"\nexclusive = true\n')
    settings = load_settings()
    assert trace_targets(settings)["tenant"].exclusive
    assert CANARY not in repr(settings) + redactor(settings).text(f"a {CANARY}")
    for wrong in (f'endpoint = "{CANARY}"', f'authorization = "{CANARY}"', f'endpoint = "http://a"\nkey = "{CANARY}"'):
        write(f"[trace_targets.tenant]\n{wrong}\n")
        with pytest.raises(
            SettingsError, match=r"^trace_targets\.tenant\.(endpoint|key) in agentstream\.toml: "
        ) as told:
            load_settings()
        assert CANARY not in str(told.value)


def shown(default: object) -> str:
    if default is None or default == ():
        return "–"
    if isinstance(default, bool):
        return str(default).lower()
    if isinstance(default, tuple):
        return ",".join(default)
    return f"{default:g}" if isinstance(default, float) else str(default)


def test_the_readme_lists_every_setting_with_its_default_and_no_other() -> None:
    text = (ROOT / "README.md").read_text()
    listed = re.findall(r"^\| `(?:KAFKA|AGENTSTREAM)_.*$", text, re.MULTILINE)
    rows = [
        f"| `{prefix}{name.upper()}` | {shown(field.get_default(call_default_factory=True))} | {field.description} |"
        for model, prefix in (
            (KafkaSettings, "KAFKA_"),
            (Settings, "AGENTSTREAM_"),
            (LimitSettings, "AGENTSTREAM_LIMITS_"),
            (RetrySettings, "AGENTSTREAM_RETRY_"),
        )
        for name, field in model.model_fields.items()
        if name not in {"kafka", "limits", "retry", "credentials", "trace_targets"}
    ]
    others = ("AGENTSTREAM_CONFIG", "AGENTSTREAM_BROKER")
    assert [row for row in listed if not any(name in row for name in others)] == rows
    assert len(listed) == len(rows) + len(others)


@pytest.mark.parametrize("wrong", ["a:b:c", "localhost:abc", "localhost:0", "host:99999", "a:1,", "http://a:1", "::1"])
def test_brokers_that_no_client_could_reach_are_refused(monkeypatch: pytest.MonkeyPatch, wrong: str) -> None:
    # aiokafka fails for these with a bare ValueError, which looked like a bug of ours.
    monkeypatch.setenv("KAFKA_BOOTSTRAP_SERVERS", wrong)
    with pytest.raises(SettingsError, match=r"^KAFKA_BOOTSTRAP_SERVERS .*must be `host:port`") as refused:
        load_settings()
    assert str(refused.value).count("separated by commas") == 1, "the setting's description says the same"


@pytest.mark.parametrize("right", ["a:1, b:2", "localhost", "[::1]:9092,127.0.0.1:9092"])
def test_brokers_by_name_and_by_address_are_taken(monkeypatch: pytest.MonkeyPatch, right: str) -> None:
    monkeypatch.setenv("KAFKA_BOOTSTRAP_SERVERS", right)
    assert load_settings().kafka.bootstrap_servers == right.replace(" ", "")


def test_brokers_may_be_an_array_in_the_file() -> None:
    write('[kafka]\nbootstrap_servers = ["a:1", "b:2"]\n')
    assert load_settings().kafka.bootstrap_servers == "a:1,b:2"
    write('[kafka]\nbootstrap_servers = ["a:1", 2]\n')
    with pytest.raises(SettingsError, match=r"^KAFKA_BOOTSTRAP_SERVERS "):
        load_settings()


@pytest.mark.parametrize("name", ["LIMITS_IDLE_MS", "LIMITS_MAX_TURNS", "RETRY_CAP_MS", "LIMITS_MAX_OUTPUT_BYTES"])
def test_bounds_that_no_request_could_say_are_refused(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    # What took effect could not be put into a result: `inspect` ended with exit code 70.
    monkeypatch.setenv(f"AGENTSTREAM_{name}", "99999999999999999999")
    with pytest.raises(SettingsError, match=rf"^AGENTSTREAM_{name} .*must be less than"):
        load_settings()


def test_an_endpoint_that_is_no_url_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", CANARY)
    monkeypatch.setenv("OPENAI_BASE_URL", "nope")
    with pytest.raises(SettingsError, match=r"^OPENAI_BASE_URL: must be a URL"):
        load_settings()


def test_a_tool_that_no_harness_has_is_refused() -> None:
    with pytest.raises(SettingsError, match=r"^AGENTSTREAM_TOOLS: there is no tool 'rm'; there are bash, read"):
        check_kinds(load_settings(overrides={"tools": "bash,rm"}))
    check_kinds(load_settings(overrides={"tools": ",".join(PI_TOOLS)}))
    check_kinds(load_settings(overrides={"tools": "rm", "harnesses": "scripted"}))


def test_a_slip_in_the_name_of_a_kafka_variable_is_found_and_a_brokers_own_is_left_alone() -> None:
    environment = {"KAFKA_BOOTSTRAP_SERVER": "a:1", "KAFKA_HEAP_OPTS": "-Xmx1g", "KAFKA_CLIENT_ID": "me"}
    assert unknown_variables(environment) == ("KAFKA_BOOTSTRAP_SERVER",)
