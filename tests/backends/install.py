"""Puts trace backends into an environment of their own, `.cache/backends`: `make backends` runs it.

Not into `.venv`: a backend is a server with 155 packages, several of them in other versions than ours.
"""

import hashlib
import subprocess
import sys
from pathlib import Path

REQUIREMENTS = Path(__file__).with_name("requirements.txt")
HOME = Path(__file__).parents[2] / ".cache" / "backends"
PHOENIX = HOME / "bin" / "phoenix"
_STAMP = HOME / ".agentstream-stamp"


def is_ready() -> bool:
    """Whether what is locked is what is installed."""
    return PHOENIX.exists() and _STAMP.exists() and _STAMP.read_text() == _wanted()


def install() -> None:
    """Make the environment anew; takes a minute or two. Raises CalledProcessError with what pip said above it."""
    subprocess.run([sys.executable, "-m", "venv", "--clear", HOME], check=True)
    pip: list[str | Path] = [HOME / "bin" / "python", "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    subprocess.run([*pip, "--require-hashes", "--only-binary=:all:", "-r", REQUIREMENTS], check=True)
    _STAMP.write_text(_wanted())


def _wanted() -> str:
    return hashlib.sha256(REQUIREMENTS.read_bytes() + str(HOME).encode()).hexdigest()


if __name__ == "__main__":
    if not is_ready():
        print("[set-up] installing Arize Phoenix into .cache/backends …", file=sys.stderr, flush=True)  # noqa: T201
        install()
