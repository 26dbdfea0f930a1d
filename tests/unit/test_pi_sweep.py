"""Whom a sweep means, and whom not."""

import os
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from agentstream.consumers.harness import sweep as sweeping
from agentstream.consumers.harness.pi_workspace import Workspace
from agentstream.consumers.harness.sweep import MARK, ROOT_PREFIX, Owner, Target, remove_tree, sweep, sweep_orphans

ME = Owner.here()


def start(mark: str | None, *, directory: Path | None = None) -> subprocess.Popen[bytes]:
    environment = {} if mark is None else {MARK: mark}
    return subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE, env=environment, cwd=directory)


def stop(process: subprocess.Popen[bytes]) -> int:
    process.kill()
    code = process.wait()
    if process.stdin is not None:
        process.stdin.close()
    return code


@pytest.mark.parametrize(
    ("mark", "meant"),
    [
        ("1.2.x", True),
        ("1.2.x/a", True),
        ("1.2.x/a/b", True),
        ("1.2.xy", False),
        ("1.2.xy/a", False),
        ("11.2.x/a", False),
        ("", False),
        (None, False),
    ],
)
def test_a_mark_means_itself_and_what_is_below_it(mark: str | None, meant: bool) -> None:
    assert Target(mark="1.2.x").matches(mark, "/") is meant


def test_a_directory_means_what_works_in_it() -> None:
    target = Target(mark="1.2.x", directory=Path("/tmp/a"))
    inside = ["/tmp/a", "/tmp/a/b"]
    outside = ["/tmp/ab", "/tmp", "/", ""]
    assert [target.matches(None, place) for place in inside] == [True, True]
    assert not any(target.matches(None, place or None) for place in outside)


def test_an_owner_survives_its_mark_and_is_alive_only_with_its_start_time() -> None:
    assert Owner.parse(f"{ME.mark}/attempt") == ME
    assert ME.is_alive()
    assert not Owner(pid=ME.pid, started_ms=ME.started_ms - 60_000, token="x").is_alive()
    assert not Owner(pid=2**22 + 1, started_ms=ME.started_ms, token="x").is_alive()


@pytest.mark.parametrize("mark", ["", "x", "1.2", "a.b.c", "1.2.x.y", "-1.2.x", "1.2.3.4/5"])
def test_a_strange_mark_has_no_owner(mark: str) -> None:
    assert Owner.parse(mark) is None


def test_a_sweep_kills_the_marked_and_spares_the_others(tmp_path: Path) -> None:
    mine, other, here = start(f"{ME.mark}/one"), start(f"{ME.mark}/two"), start(None, directory=tmp_path)
    try:
        assert sweep([Target(mark=f"{ME.mark}/one", directory=tmp_path)]) == 2
        assert (mine.wait(), here.wait()) == (-9, -9)
        assert other.poll() is None
    finally:
        for process in (mine, other, here):
            stop(process)


def test_orphans_are_those_whose_owner_is_dead(tmp_path: Path) -> None:
    dead = Owner(pid=ME.pid, started_ms=ME.started_ms - 3_600_000, token="dead")
    theirs, ours, strange = start(f"{dead.mark}/a"), start(f"{ME.mark}/a"), start("not one of ours")
    for owner in (dead, ME):
        (tmp_path / f"{ROOT_PREFIX}{owner.mark}" / "a").mkdir(parents=True)
    (tmp_path / f"{ROOT_PREFIX}something-else").mkdir()
    try:
        assert sweep_orphans(tmp_path) == 1
        assert theirs.wait() == -9
        assert (ours.poll(), strange.poll()) == (None, None)
        kept = {f"{ROOT_PREFIX}{ME.mark}", f"{ROOT_PREFIX}something-else"}
        assert {path.name for path in tmp_path.iterdir()} == kept
    finally:
        for process in (theirs, ours, strange):
            stop(process)


def test_the_watcher_acts_at_the_end_of_its_input_and_not_before(tmp_path: Path) -> None:
    owner = Owner(pid=ME.pid, started_ms=ME.started_ms, token="watched")
    root = tmp_path / "root"
    (root / "a").mkdir(parents=True)
    marked = start(f"{owner.mark}/a")
    watcher = subprocess.Popen(
        [sys.executable, "-I", str(Path(str(sweeping.__file__))), owner.mark, str(root)], stdin=subprocess.PIPE, env={}
    )
    try:
        assert watcher.stdin is not None
        watcher.stdin.write(b"not the end")
        watcher.stdin.flush()
        assert marked.poll() is None
        watcher.stdin.close()
        assert marked.wait() == -9
        assert watcher.wait() == 0
        assert not root.exists()
    finally:
        for process in (marked, watcher):
            stop(process)


def test_a_tree_without_permissions_is_removed_and_no_link_is_followed(tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "kept").touch()
    tree = tmp_path / "tree"
    (tree / "a" / "b").mkdir(parents=True)
    (tree / "a" / "b" / "file").touch()
    (tree / "link").symlink_to(outside)
    for locked in (tree / "a" / "b", tree / "a", tree):
        locked.chmod(0)
    remove_tree(tree)
    assert not tree.exists()
    assert (outside / "kept").exists()
    remove_tree(tree)


def test_this_process_is_never_swept(monkeypatch: pytest.MonkeyPatch) -> None:
    assert not any(process.pid == os.getpid() for process, _, _ in sweeping._processes())
    assert psutil.pid_exists(os.getpid())


async def test_attempts_without_tools_share_a_directory_which_outlives_them_and_who_else_works_there(
    tmp_path: Path,
) -> None:
    async with Workspace(tmp_path) as workspace:
        there = sorted(workspace.root.iterdir())
        one, other = (workspace.open_place(name, own=False) for name in ("one", "other"))
        assert one.directory == other.directory
        assert one.mark != other.mark
        assert sorted(workspace.root.iterdir()) == there
        sidecar = start(None, directory=one.directory)
        await workspace.close_place(one, sweep=True)
        assert sidecar.poll() is None
        assert stop(sidecar) == -9
        assert sorted(workspace.root.iterdir()) == there
