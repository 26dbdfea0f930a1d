import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from tests.architecture.sources import ROOT


def run(*command: str | Path, cwd: Path) -> str:
    environment = {key: value for key, value in os.environ.items() if not key.startswith(("PYTHON", "VIRTUAL_ENV"))}
    done = subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, timeout=100, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout.strip()


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build the wheel from an unpacked source distribution, as an index would."""
    folder = tmp_path_factory.mktemp("dist")
    run(sys.executable, "-m", "hatchling", "build", "-d", folder, "-t", "sdist", cwd=ROOT)
    (source,) = folder.glob("*.tar.gz")
    run("tar", "-xzf", source, cwd=folder)
    unpacked = folder / source.name.removesuffix(".tar.gz")
    run(sys.executable, "-m", "hatchling", "build", "-d", folder, "-t", "wheel", cwd=unpacked)
    (built,) = folder.glob("*.whl")
    return built


@pytest.fixture(scope="module")
def python(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Install the wheel in an environment outside the repository; its dependencies are lent by the one of the tests."""
    home = tmp_path_factory.mktemp("installed")
    run(sys.executable, "-m", "venv", "--without-pip", home / "venv", cwd=home)
    (site,) = (home / "venv").glob("lib/python*/site-packages")
    pip = (
        sys.executable,
        "-m",
        "pip",
        "--python",
        home / "venv" / "bin" / "python",
        "install",
        "--quiet",
        "--no-index",
    )
    run(*pip, "--no-deps", wheel, cwd=home)
    # Lent as a plain folder, so that the .pth file of the editable install in it does nothing.
    (lent,) = {entry for entry in sys.path if entry.endswith("site-packages")}
    (site / "lent.pth").write_text(lent + "\n")
    return home / "venv" / "bin" / "python"


@pytest.fixture
def application(tmp_path: Path) -> Path:
    """Give an application that has modules of its own with the names of our folders."""
    for name in ("schemas", "producers", "consumers", "infra"):
        (tmp_path / f"{name}.py").write_text(f"OWNER = 'the application: {name}'\n")
    return tmp_path


def test_the_wheel_holds_what_runs_and_nothing_that_was_fetched(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    for wanted in (
        "py.typed",
        "infra/pi-sidecar/package-lock.json",
        "infra/pi-sidecar/src/main.js",
        "infra/kafka/pom.xml",
    ):
        assert f"agentstream/{wanted}" in names
    assert [name for name in names if "node_modules" in name or name.endswith((".jar", ".pyc"))] == []
    assert [name for name in names if "bootstrap" in name or "/tests/" in name] == []
    assert {name.split("/", 1)[0] for name in names} == {"agentstream", "agentstream_kafka-0.1.0.dist-info"}
    assert wheel.stat().st_size < 2 * 1024 * 1024


def test_installed_it_lives_beside_an_application_with_a_schemas_module_of_its_own(
    python: Path, application: Path
) -> None:
    (application / "main.py").write_text(
        "import consumers, infra, producers, schemas\n"
        "import agentstream.schemas.requests\n"
        "from agentstream import AgentClient\n"
        "print(schemas.OWNER, '|', agentstream.schemas.requests.__file__, '|', AgentClient.__name__)\n"
    )
    owner, module, client = run(python, "main.py", cwd=application).split(" | ")
    assert owner == "the application: schemas"
    assert Path(module).is_relative_to(python.parents[1])
    assert client == "AgentClient"


def test_installed_it_looks_for_its_tools_in_the_users_cache(python: Path, application: Path) -> None:
    code = "from agentstream.infra.toolchain import state_dir; print(state_dir())"
    assert run(python, "-c", code, cwd=application).endswith("agentstream/0.1.0")


def test_the_command_is_installed(python: Path, application: Path) -> None:
    assert "invoke" in run(python.with_name("agentstream"), "--help", cwd=application)
