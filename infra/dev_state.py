"""How `agentstream invoke` in another terminal finds the broker of `agentstream dev`: a small file of this user.

One for each `dev` that runs: when there was one for all, the end of a second one hid the first."""

import json
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import psutil
from pydantic import SecretStr

from agentstream.infra.settings import CredentialSettings, Settings

_SAME_START_S = 2.0
_SHOWN = frozenset(
    {"topic_prefix", "group_id", "harnesses", "model", "tools", "limits", "retry", "max_request_bytes", "trace_dir"}
    | {"pi_http_url", "pi_http_token_file"}  # without them `doctor` beside it said that they are not set
)
_ELSEWHERE = SecretStr("known to `agentstream dev` only")


@dataclass(frozen=True, kw_only=True, slots=True)
class DevState:
    """A running `agentstream dev`."""

    bootstrap_servers: str
    """Its broker."""
    settings: Settings
    """What it was started with, as far as others may know: no keys."""
    pid: int
    """Its process."""
    started: float
    """When that process started, seconds since 1970: tells it from a later one with the same pid."""


@contextmanager
def published(bootstrap_servers: str, settings: Settings) -> Iterator[None]:
    """Let other terminals find this process' broker until the block ends. The latest `dev` wins."""
    state = {
        "bootstrap_servers": bootstrap_servers,
        "settings": settings.model_dump(mode="json", include=set(_SHOWN)),
        "agent_dir": None if settings.agent_dir is None else str(settings.agent_dir.resolve()),
        "credentials": {name: given.provider for name, given in settings.credentials.items()},
        "pid": os.getpid(),
        "started": psutil.Process().create_time(),
    }
    directory = state_directory()
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    path = directory / f"dev-{os.getpid()}.json"
    fresh = path.with_suffix(".new")
    fresh.write_text(json.dumps(state))
    fresh.replace(path)
    try:
        yield
    finally:
        path.unlink(missing_ok=True)


def running_dev() -> DevState | None:
    """The `agentstream dev` that was started last of those that run now, if any."""
    return next(reversed(running_devs()), None)


def running_devs(directory: Path | None = None) -> list[DevState]:
    """Those that run now, the latest last. `directory`: another one than that of this terminal.

    A file that is not this user's, misshapen or stale is none.
    """
    found = (_read(path) for path in (directory or state_directory()).glob("dev-*.json"))
    running = [state for state in found if state is not None and _is_alive(state)]
    return sorted(running, key=lambda state: state.started)


def running_elsewhere() -> DevState | None:
    """One of this user's that a terminal with another XDG_RUNTIME_DIR, or none, has started."""
    places = {Path(f"/run/user/{os.getuid()}/agentstream"), _without_runtime()} - {state_directory()}
    running = [state for place in places for state in running_devs(place)]
    return max(running, key=lambda state: state.started, default=None)


def state_directory() -> Path:
    """In the user's runtime directory, else a directory of the user's own among the temporary ones."""
    runtime = os.environ.get("XDG_RUNTIME_DIR")
    if runtime and Path(runtime).is_dir():
        return Path(runtime) / "agentstream"
    return _without_runtime()


def _without_runtime() -> Path:
    return Path(tempfile.gettempdir()) / f"agentstream-{os.getuid()}"


def _read(path: Path) -> DevState | None:
    try:
        # Anybody may write to /tmp: a file of somebody else's must not send our requests to their broker.
        if {path.stat().st_uid, path.parent.stat().st_uid} != {os.getuid()}:
            return None
        found = json.loads(path.read_text())
        return DevState(
            bootstrap_servers=str(found["bootstrap_servers"]),
            settings=_settings(found),
            pid=int(found["pid"]),
            started=float(found["started"]),
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None


def _settings(found: dict[str, dict[str, object]]) -> Settings:
    credentials = {
        name: CredentialSettings.model_validate({"provider": provider, "api_key": _ELSEWHERE})
        for name, provider in found["credentials"].items()
    }
    return Settings.model_validate({**found["settings"], "agent_dir": found["agent_dir"], "credentials": credentials})


def _is_alive(state: DevState) -> bool:
    try:
        return abs(psutil.Process(state.pid).create_time() - state.started) < _SAME_START_S
    except psutil.Error:
        return False
