"""Opens the harnesses that the settings allow, with the tools they stand on."""

import os
import shutil
import sys
import tempfile
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from ipaddress import ip_address
from pathlib import Path

from agentstream.consumers.harness.launcher import bubblewrap_prefix
from agentstream.consumers.harness.pi import PiHarness, PiSettings
from agentstream.consumers.harness.pi_http import PiHttpHarness
from agentstream.consumers.harness.pi_http_stream import HttpPlace
from agentstream.consumers.harness.port import Harness
from agentstream.consumers.harness.scripted import ScriptedHarness
from agentstream.consumers.redaction import Redactor
from agentstream.infra.connection import pi_http_token
from agentstream.infra.settings import Settings
from agentstream.infra.settings_file import SettingsError
from agentstream.infra.toolchain import Progress, ToolMissing, ensure_pi_sidecar, find_node, quiet

AVAILABLE = ("pi", "pi-http", "scripted")
PI = frozenset({"pi", "pi-http"})
"""Those that run Pi, here or elsewhere."""
PI_TOOLS = ("bash", "read", "write", "edit", "grep", "find", "ls")
_FOR_THE_SIDECAR = (
    "HTTP_PROXY",
    "HTTPS_PROXY",
    "NO_PROXY",
    "http_proxy",
    "https_proxy",
    "no_proxy",
    "NODE_EXTRA_CA_CERTS",
    "NODE_USE_ENV_PROXY",
)
"""What a network may need to reach a provider. Nothing else of our environment reaches the sidecar."""


@asynccontextmanager
async def open_harnesses(
    settings: Settings, redactor: Redactor, progress: Progress = quiet
) -> AsyncIterator[Mapping[str, Harness]]:
    """The allowed harnesses by kind, open. Closes them, and all their processes, at the end.

    Raises SettingsError as `check_kinds`, ToolMissing for a missing Node or Pi, and the Pi sidecar's
    SidecarUnavailable if it does not start, or that of `pi-http` is not there.
    """
    check_kinds(settings)
    async with AsyncExitStack() as stack:
        harnesses: dict[str, Harness] = {}
        if "pi" in settings.harnesses:
            harness = PiHarness(pi_settings(settings, progress), redactor=redactor)
            harnesses["pi"] = await stack.enter_async_context(harness)
        if "pi-http" in settings.harnesses:
            remote = PiHttpHarness(http_place(settings), redactor=redactor)
            harnesses["pi-http"] = await stack.enter_async_context(remote)
        if "scripted" in settings.harnesses:
            harnesses["scripted"] = await stack.enter_async_context(ScriptedHarness())
        yield {kind: harnesses[kind] for kind in settings.harnesses}


def check_kinds(settings: Settings) -> None:
    """Raise SettingsError for a harness that does not exist, or a tool that none of them has."""
    for kind in settings.harnesses:
        if kind not in AVAILABLE:
            raise SettingsError(
                f"AGENTSTREAM_HARNESSES: there is no harness {kind!r}; there are {', '.join(AVAILABLE)}"
            )
    if "pi-http" in settings.harnesses:
        http_place(settings)
    # The scripted harness plays any tool.
    unknown = [tool for tool in settings.tools if tool not in PI_TOOLS]
    if unknown and "scripted" not in settings.harnesses:
        raise SettingsError(f"AGENTSTREAM_TOOLS: there is no tool {unknown[0]!r}; there are {', '.join(PI_TOOLS)}")


def http_place(settings: Settings) -> HttpPlace:
    """Where the sidecar of `pi-http` is. Raises SettingsError."""
    url = settings.pi_http_url
    if url is None:
        raise SettingsError("AGENTSTREAM_PI_HTTP_URL: is not set, and the harness pi-http needs it")
    return HttpPlace(url=url, token=pi_http_token(settings))


def is_loopback(host: str) -> bool:
    """Whether nobody but this machine reaches the address. A name other than localhost is none."""
    if host == "localhost":
        return True
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False


def pi_settings(settings: Settings, progress: Progress = quiet) -> PiSettings:
    """Where Node, Pi and the throwaway directories are. May install Pi's packages; raises ToolMissing."""
    node = find_node().node
    return PiSettings(
        node=node,
        sidecar=ensure_pi_sidecar(progress) / "src" / "main.js",
        temporary=_temporary(),
        path=os.environ.get("PATH", os.defpath),
        # SIGUSR1 would open Node's debugger on loopback, and any run's shell could read all runs' keys there.
        node_arguments=("--disable-sigusr1",),
        environment={name: os.environ[name] for name in _FOR_THE_SIDECAR if name in os.environ},
        shell_prefix=_sandbox() if settings.sandbox == "bubblewrap" else (),
    )


def _temporary() -> Path:
    """TMPDIR if it is there, full or not: the standard library would silently take /tmp, or where we were started."""
    wanted = Path(os.environ.get("TMPDIR", ""))
    return wanted if wanted.is_absolute() and wanted.is_dir() else Path(tempfile.gettempdir())


def _sandbox() -> tuple[str, ...]:
    program = shutil.which("bwrap")
    if program is None or not sys.platform.startswith("linux"):
        raise ToolMissing(
            "AGENTSTREAM_SANDBOX is bubblewrap, and there is no `bwrap`",
            "Install it (Debian and Ubuntu: apt-get install bubblewrap), or set AGENTSTREAM_SANDBOX=none.",
        )
    return bubblewrap_prefix(Path("{workdir}"), program=Path(program), as_root=os.geteuid() == 0)
