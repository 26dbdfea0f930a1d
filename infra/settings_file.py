"""Reads the settings: finds the file, lays the environment over it, turns what is wrong into one line.

load_settings(config, overrides) -> Settings, or SettingsError that names the variable and says what to do
"""

import difflib
import os
import tomllib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TypeVar

from pydantic import SecretStr, ValidationError
from pydantic_core import ErrorDetails
from pydantic_settings import BaseSettings, EnvSettingsSource
from pydantic_settings.exceptions import SettingsError as UnreadableVariable

from agentstream.infra.settings import (
    FILE_NAME,
    CredentialSettings,
    KafkaSettings,
    LimitSettings,
    RetrySettings,
    Settings,
    TraceTargetSettings,
)

S = TypeVar("S", bound=BaseSettings)
CONFIG_VARIABLE = "AGENTSTREAM_CONFIG"
OTHER_VARIABLES = frozenset({CONFIG_VARIABLE, "AGENTSTREAM_BROKER", "AGENTSTREAM_RUN"})
"""Ours, and no settings: which file, which local broker, and the mark of a run's processes."""
_PROVIDERS = {"openai": "OPENAI", "anthropic": "ANTHROPIC"}
_TABLES = frozenset({"kafka", "limits", "retry", "credentials", "trace_targets"})
_SENTENCES = {
    "missing": "is required",
    "extra_forbidden": "is no setting",
    "int_parsing": "must be a whole number",
    "int_from_float": "must be a whole number",
    "float_parsing": "must be a number",
    "bool_parsing": "must be true or false",
    "path_not_file": "must be an existing file",
    "path_not_directory": "must be an existing directory",
    "string_pattern_mismatch": "is misshapen",
}


class SettingsError(Exception):
    """The settings cannot be used. Its text is one line: the variable, what is wrong, what to do. Never a value."""


def load_settings(config: Path | None = None, overrides: Mapping[str, object] | None = None) -> Settings:
    """Read the settings; `overrides`, from command-line options, win over all. Raises SettingsError."""
    path = _file(config)
    content = _read(path) if path is not None else {}
    where = str(path) if path is not None else FILE_NAME
    kafka = _layered(KafkaSettings, _table(content, "kafka", where), where, "kafka.")
    limits = _layered(LimitSettings, _table(content, "limits", where), where, "limits.")
    retry = _layered(RetrySettings, _table(content, "retry", where), where, "retry.")
    named = _table(content, "credentials", where)
    credentials = _from_environment() | {
        name: _made(CredentialSettings, _table(named, name, where), where, f"credentials.{name}.") for name in named
    }
    places = _table(content, "trace_targets", where)
    targets = {
        name: _made(TraceTargetSettings, _table(places, name, where), where, f"trace_targets.{name}.")
        for name in places
    }
    nested = {
        "kafka": kafka, "limits": limits, "retry": retry, "credentials": credentials, "trace_targets": targets
    }  # fmt: skip
    return _layered(Settings, content, where, "", over={**nested, **(overrides or {})})


def unknown_variables(environment: Mapping[str, str]) -> tuple[str, ...]:
    """Variables that begin like ours and are none: misspelt, and silently without effect."""
    known = {f"AGENTSTREAM_{name}".upper() for name in Settings.model_fields if name not in _TABLES} | OTHER_VARIABLES
    known |= {f"AGENTSTREAM_LIMITS_{name}".upper() for name in LimitSettings.model_fields}
    known |= {f"AGENTSTREAM_RETRY_{name}".upper() for name in RetrySettings.model_fields}
    ours = [name for name in environment if name.startswith("AGENTSTREAM_") and name not in known]
    # Brokers and their scripts have KAFKA_* of their own: only what looks like one of ours is taken for a slip.
    kafka = [f"KAFKA_{name}".upper() for name in KafkaSettings.model_fields]
    others = [name for name in environment if name.startswith("KAFKA_") and name not in kafka]
    return tuple(sorted(ours + [name for name in others if difflib.get_close_matches(name, kafka, n=1, cutoff=0.9)]))


def _file(config: Path | None) -> Path | None:
    named = config or (Path(os.environ[CONFIG_VARIABLE]) if os.environ.get(CONFIG_VARIABLE) else None)
    if named is not None:
        return named
    here = Path(FILE_NAME)
    return here if here.is_file() else None


def _read(path: Path) -> dict[str, object]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise SettingsError(f"{path}: cannot be read ({error.strerror}): check --config or {CONFIG_VARIABLE}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        # tomllib's message names line and column and quotes nothing, so no secret.
        raise SettingsError(f"{path}: is not TOML: {error}") from None


def _table(content: dict[str, object], name: str, where: str) -> dict[str, object]:
    table = content.pop(name, {}) if name in _TABLES else content[name]
    if not isinstance(table, dict):
        raise SettingsError(f"{name} in {where}: must be a table")
    return table


def _layered(
    model: type[S], values: Mapping[str, object], where: str, prefix: str, *, over: Mapping[str, object] | None = None
) -> S:
    """What the file says, below the environment, below `over`."""
    try:
        environment = EnvSettingsSource(model)()
    except UnreadableVariable as error:
        raise SettingsError(str(error)) from None
    return _made(model, {**values, **environment, **(over or {})}, where, prefix)


def _made(model: type[S], values: Mapping[str, object], where: str, prefix: str) -> S:
    make: Callable[..., S] = model
    try:
        return make(**values)
    except ValidationError as error:
        raise SettingsError(_line(model, error.errors(include_url=False)[0], where, prefix)) from None


def _line(model: type[BaseSettings], error: ErrorDetails, where: str, prefix: str) -> str:
    """`AGENTSTREAM_MAX_IN_FLIGHT (max_in_flight in agentstream.toml): must be …`. No value: it may be secret."""
    message = error["msg"].removeprefix("Value error, ")
    if not error["loc"]:
        return message  # our own sentence, which names the variables
    name = str(error["loc"][0])
    sentence = _SENTENCES.get(error["type"], message.replace("Input should be", "must be").replace("Input", "it"))
    field = model.model_fields.get(name)
    if field is None:
        return f"{prefix}{name} in {where}: {sentence}; the README lists all settings"
    described = field.description or ""
    hint = f" ({described})" if described.rstrip(".") not in sentence else ""
    in_file = f"{prefix}{name} in {where}"
    if not model.model_config.get("env_prefix"):
        return f"{in_file}: {sentence}{hint}"
    return f"{model.model_config.get('env_prefix')}{name}".upper() + f" ({in_file}): {sentence}{hint}"


def _from_environment() -> dict[str, CredentialSettings]:
    return {
        name: _of_provider(name, variable, SecretStr(key))
        for name, variable in _PROVIDERS.items()
        if (key := os.environ.get(f"{variable}_API_KEY"))
    }


def _of_provider(name: str, variable: str, key: SecretStr) -> CredentialSettings:
    try:
        return CredentialSettings(provider=name, api_key=key, base_url=os.environ.get(f"{variable}_BASE_URL") or None)
    except ValidationError as error:
        said = error.errors(include_url=False)[0]["msg"].removeprefix("Value error, ")
        raise SettingsError(f"{variable}_BASE_URL: {said}") from None
