"""Set up a checkout: `.venv` with the locked requirements, then the tools that pip does not bring.

Standard library only. Run by `infra/bootstrap.sh`. A stamp in `.venv` makes the second run take a fraction of a second.
"""

import fcntl
import hashlib
import os
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
VENV = ROOT / ".venv"
PYTHON = VENV / "bin" / "python"
STAMP = VENV / ".agentstream-stamp"
SOURCES = ("requirements-dev.txt", "pyproject.toml", "infra/bootstrap.py")


def say(line: str) -> None:
    """Tell what takes long, on stderr: stdout belongs to the command that follows."""
    print(f"[set-up] {line}", file=sys.stderr, flush=True)


def wanted() -> str:
    """Return what the stamp must say: a digest of all that the environment is made from, its place included."""
    digest = hashlib.sha256(str(ROOT).encode())
    for name in SOURCES:
        digest.update((ROOT / name).read_bytes())
    return digest.hexdigest()


def is_ready() -> bool:
    """Tell whether `.venv` is what the sources ask for."""
    return PYTHON.exists() and STAMP.exists() and STAMP.read_text() == wanted()


def run(*command: str | Path, otherwise: str) -> None:
    """Run a step quietly; when it fails show what it said, then what to do, and stop."""
    done = subprocess.run(command, cwd=ROOT, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        sys.exit(f"{done.stdout}{done.stderr}\n{otherwise}")


def make_environment() -> None:
    """Make `.venv`, install the locked requirements by hash, and the project itself as an editable install."""
    started = time.monotonic()
    if Path(sys.prefix).resolve() != VENV:
        say(f"making .venv with Python {sys.version_info.major}.{sys.version_info.minor} …")
        run(
            sys.executable, "-m", "venv", "--clear", VENV,
            otherwise="Python's venv module does not work here. Debian and Ubuntu: apt-get install python3-venv",
        )  # fmt: skip
    say("installing the locked requirements …")
    pip = (PYTHON, "-m", "pip", "install", "--quiet", "--disable-pip-version-check")
    run(
        *pip, "--require-hashes", "--only-binary=:all:", "-r", ROOT / "requirements-dev.txt",
        otherwise="The requirements could not be installed. Is the package index reachable?",
    )  # fmt: skip
    run(*pip, "--no-deps", "--no-build-isolation", "-e", ROOT, otherwise="The project itself could not be installed.")
    STAMP.write_text(wanted())
    say(f"Python is ready after {time.monotonic() - started:.0f} s")


def main() -> None:
    """Bring `.venv` up to date, then hand over to the toolchain inside it."""
    if sys.platform not in {"linux", "darwin"}:
        sys.exit("agentstream runs on Linux and macOS. On Windows use WSL.")
    if not is_ready():
        (ROOT / ".cache").mkdir(exist_ok=True)
        with (ROOT / ".cache" / "bootstrap.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)  # two `make`s at once must not build one .venv
            if not is_ready():
                make_environment()
    os.execv(PYTHON, [str(PYTHON), "-m", "agentstream.infra.toolchain"])


if __name__ == "__main__":
    main()
