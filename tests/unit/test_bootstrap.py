import shutil
import subprocess
import sys
from pathlib import Path

from tests.architecture.sources import ROOT


def run(checkout: Path, path: Path, *, python: str = "") -> subprocess.CompletedProcess[str]:
    environment = {"PATH": str(path), "HOME": str(checkout), "PYTHON": python}
    command = ["/bin/sh", str(checkout / "infra" / "bootstrap.sh")]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=False)


def checkout_with(tmp_path: Path, *tools: str) -> tuple[Path, Path]:
    """Make a checkout that has nothing but the bootstrap, and a PATH that has nothing but these tools."""
    checkout, path = tmp_path / "checkout", tmp_path / "bin"
    (checkout / "infra").mkdir(parents=True)
    path.mkdir()
    shutil.copy(ROOT / "infra" / "bootstrap.sh", checkout / "infra")
    (checkout / "infra" / "bootstrap.py").write_text("print('set up by a Python that is new enough')\n")
    for tool in ("dirname", "cat", *tools):
        (path / tool).symlink_to(shutil.which(tool) or tool)
    return checkout, path


def fake_python(file: Path, text: str) -> None:
    file.write_text(f"#!/bin/sh\n{text}\n")
    file.chmod(0o755)


def test_without_python_it_says_what_to_install(tmp_path: Path) -> None:
    done = run(*checkout_with(tmp_path))
    assert done.returncode == 1
    assert "needs Python 3.11 or newer" in done.stderr
    assert "apt-get install python3 python3-venv" in done.stderr


def test_an_old_python_or_a_broken_shim_is_passed_over_for_one_that_works(tmp_path: Path) -> None:
    # pyenv leaves a `python3.13` on the PATH that only says that 3.13 is not installed.
    checkout, path = checkout_with(tmp_path)
    fake_python(path / "python3", "exit 1")
    fake_python(path / "python3.13", "echo 'python3.13: command not found' >&2; exit 127")
    good = sys.executable
    fake_python(path / "python", f'exec "{good}" "$@"')
    done = run(checkout, path)
    assert (done.returncode, done.stdout) == (0, "set up by a Python that is new enough\n")


def test_the_python_that_is_named_comes_first(tmp_path: Path) -> None:
    checkout, path = checkout_with(tmp_path)
    named = tmp_path / "named"
    fake_python(named, 'test "$1" = -c || echo named')
    assert run(checkout, path, python=str(named)).stdout == "named\n"


def test_make_alone_lists_the_targets() -> None:
    done = subprocess.run(["make", "-C", str(ROOT)], capture_output=True, text=True, check=True)
    for target in ("demo", "test", "lint", "types", "chaos", "bench", "clean"):
        assert f"  {target} " in done.stdout
