"""What is fetched: the Pi sidecar's packages by npm, Kafka's jars by Maven. Each once, whoever asks first."""

import fcntl
import hashlib
import shutil
import subprocess
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from agentstream.infra.toolchain.find import CHECKOUT, PACKAGE, ToolMissing, find_java, find_maven, find_node, state_dir

_INSTALL_TIMEOUT_S = 900

Progress = Callable[[str], None]
"""Told one line before each step that takes long."""


def quiet(_line: str) -> None:
    """Report no progress."""


def ensure_pi_sidecar(progress: Progress = quiet) -> Path:
    """Return the directory of a sidecar project whose packages are installed; may run `npm ci` for some 10 s.

    Safe to call from many processes at once. Raises ToolMissing without Node, or when npm fails.
    """
    source = PACKAGE / "pi-sidecar"
    wanted = _digest([source / "package.json", source / "package-lock.json"])
    home = source
    if CHECKOUT is None:
        # Named by content: a running sidecar never sees its files change under it.
        sources = sorted(path for path in source.rglob("*") if path.is_file() and "node_modules" not in path.parts)
        home = state_dir() / f"pi-sidecar-{_digest(sources)[:12]}"
    stamp = home / "node_modules" / ".agentstream-stamp"
    if _holds(stamp, wanted):
        return home
    node = find_node()
    with _only_one("pi-sidecar"):
        if _holds(stamp, wanted):
            return home
        if home != source:
            shutil.copytree(source, home, dirs_exist_ok=True, ignore=shutil.ignore_patterns("node_modules"))
        progress("installing Pi's packages (npm ci, 160 MB) …")
        # No package needs its install script, and none should run unasked.
        command = [*node.npm, "ci", "--ignore-scripts", "--no-audit", "--no-fund", "--loglevel=error"]
        _install(command, cwd=home, what="The Pi sidecar's packages")
        stamp.write_text(wanted)
    return home


def kafka_jars() -> Path | None:
    """Return the directory of Kafka's jars if they are already here and whole."""
    home = _jars_home()
    return home if _holds(home / ".agentstream-stamp", _digest(_jar_sources())) else None


def ensure_kafka_jars(progress: Progress = quiet) -> Path:
    """Return the directory of Kafka's jars, fetched by Maven (46 jars, 44 MB) and checked against the committed hashes.

    Safe to call from many processes at once. Raises ToolMissing without Maven or Java, or when Maven fails.
    """
    here = kafka_jars()
    if here is not None:
        return here
    maven = find_maven()
    find_java()  # without it the jars would be of no use: say so before 44 MB are fetched
    home = _jars_home()
    with _only_one("kafka"):
        here = kafka_jars()
        if here is not None:
            return here
        progress("fetching Apache Kafka (Maven, 44 MB) …")
        fresh = home.with_name("libs.fresh")
        shutil.rmtree(fresh, ignore_errors=True)
        copy = [
            str(maven),
            "-q",
            "-B",
            "-C",
            "-Dstyle.color=never",
            "-f",
            str(PACKAGE / "kafka" / "pom.xml"),
            "dependency:copy-dependencies",
        ]
        where = f"-DoutputDirectory={fresh}"
        _install([*copy, "-DincludeScope=runtime", where], cwd=PACKAGE, what="Kafka's jars")
        _check_jars(fresh)
        (fresh / ".agentstream-stamp").write_text(_digest(_jar_sources()))
        shutil.rmtree(home, ignore_errors=True)
        fresh.rename(home)
    return home


def _jars_home() -> Path:
    return PACKAGE / "kafka" / "libs" if CHECKOUT is not None else state_dir() / "kafka" / "libs"


def _jar_sources() -> list[Path]:
    return [PACKAGE / "kafka" / "pom.xml", PACKAGE / "kafka" / "jars.sha256"]


def _check_jars(folder: Path) -> None:
    """Raise ToolMissing unless the folder holds exactly the jars of the committed list, byte for byte."""
    lines = (PACKAGE / "kafka" / "jars.sha256").read_text().splitlines()
    wanted = {name: digest for digest, name in (line.split() for line in lines)}
    found = {path.name: _digest([path]) for path in folder.glob("*.jar")}
    if found != wanted:
        names = sorted(name for name in wanted.keys() | found.keys() if wanted.get(name) != found.get(name))
        raise ToolMissing(
            "Kafka's jars are not the expected ones", f"These differ from jars.sha256: {', '.join(names)}."
        )


def _install(command: Sequence[str], *, cwd: Path, what: str) -> None:
    """Run an installer quietly; raise ToolMissing with the end of what it said when it fails."""
    try:
        done = subprocess.run(
            command,
            cwd=cwd,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=_INSTALL_TIMEOUT_S,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise ToolMissing(
            f"{what} could not be installed", f"`{command[0]}` took over {error.timeout:.0f} s."
        ) from error
    if done.returncode != 0:
        said = "\n".join((done.stdout + done.stderr).strip().splitlines()[-15:])
        raise ToolMissing(f"{what} could not be installed", f"Is the network reachable? The installer said:\n{said}")


def _digest(paths: Sequence[Path]) -> str:
    digest = hashlib.sha256()
    for path in paths:
        digest.update(path.read_bytes())
    return digest.hexdigest()


def _holds(stamp: Path, wanted: str) -> bool:
    try:
        return stamp.read_text() == wanted
    except FileNotFoundError:
        return False


@contextmanager
def _only_one(name: str) -> Iterator[None]:
    """Keep other processes of this machine out for as long as the block runs; the system frees it if we die."""
    state_dir().mkdir(parents=True, exist_ok=True)
    with (state_dir() / f"{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
