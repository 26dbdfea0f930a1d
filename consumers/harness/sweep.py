"""Finds and kills what runs leave behind: processes that carry a mark, and their throwaway directories.

A killed sidecar leaves its shells alive, and a child that called `setsid` survives the kill of its process group. All
of them carry `AGENTSTREAM_RUN=<owner>/<run>` in their environment, where the owner names a process of ours by pid and
start time. They are swept after each run that used tools, when an owner is found dead at a start, and by `watch`:
this file run as a script, which outlives a kill -9 of its owner and acts at the end of its stdin.

Uses psutil and the standard library only, so that the watcher starts in 60 ms. A process that empties its
environment *and* leaves its directory is not found: that takes a sandbox.
"""

import contextlib
import os
import shutil
import stat
import sys
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from uuid import uuid4

import psutil

MARK = "AGENTSTREAM_RUN"
ROOT_PREFIX = "agentstream-run-"
_MOST_S = 5.0
_AGAIN_S = 0.003
_SAME_START_S = 2.0


@dataclass(frozen=True, kw_only=True, slots=True)
class Owner:
    """A process of ours that starts marked ones."""

    pid: int
    """Its process id."""
    started_ms: int
    """When it started, ms since 1970: tells it from a later process with the same pid."""
    token: str
    """Tells two owners in one process apart."""

    @classmethod
    def here(cls) -> "Owner":
        """This process."""
        return cls(pid=os.getpid(), started_ms=_started_ms(psutil.Process()), token=uuid4().hex[:8])

    @classmethod
    def parse(cls, mark: str) -> "Owner | None":
        """The owner in a mark, or None if it is not one of ours."""
        parts = mark.partition("/")[0].split(".")
        if len(parts) != 3 or not (parts[0].isdecimal() and parts[1].isdecimal()):
            return None
        return cls(pid=int(parts[0]), started_ms=int(parts[1]), token=parts[2])

    @property
    def mark(self) -> str:
        """The mark of its own processes, and the beginning of its runs' marks."""
        return f"{self.pid}.{self.started_ms}.{self.token}"

    def is_alive(self) -> bool:
        """Whether the process still runs."""
        try:
            process = psutil.Process(self.pid)
            # The start is computed from the boot time, which moves by a second or so when the clock is set.
            same = abs(_started_ms(process) - self.started_ms) <= _SAME_START_S * 1_000
            return same and process.status() != psutil.STATUS_ZOMBIE
        except psutil.NoSuchProcess:
            return False


@dataclass(frozen=True, kw_only=True, slots=True)
class Target:
    """What to sweep: all that carries the mark, or works in the directory."""

    mark: str
    """A run's mark, or an owner's for all its runs."""
    directory: Path | None = None
    """Its throwaway directory: finds those that emptied their environment."""

    def matches(self, mark: str | None, directory: str | None) -> bool:
        """Whether a process with this mark and working directory is meant."""
        if mark is not None and (mark == self.mark or mark.startswith(f"{self.mark}/")):
            return True
        return self.directory is not None and directory is not None and Path(directory).is_relative_to(self.directory)


def sweep(targets: Iterable[Target]) -> int:
    """Kill every process that one of the targets means; returns how many. Blocks for some milliseconds, at most 5 s.

    Looks again until nothing is found: a process may start another while its siblings are being killed. (Waiting for
    the killed ones to vanish would take as long as an init that is slow to reap them: a second was seen.)
    """
    wanted, killed, deadline = tuple(targets), set[psutil.Process](), time.monotonic() + _MOST_S
    while time.monotonic() < deadline:
        found = [p for p, mark, directory in _processes() if any(t.matches(mark, directory) for t in wanted)]
        if not found:
            break
        killed.update(process for process in found if _kill(process))
        time.sleep(_AGAIN_S)
    return len(killed)


def sweep_orphans(parent: Path) -> int:
    """Kill what dead owners left behind, and remove their directories in `parent`; returns the processes killed."""
    marks = {mark for _, mark, _ in _processes() if mark is not None}
    roots = {path.name.removeprefix(ROOT_PREFIX): path for path in parent.glob(f"{ROOT_PREFIX}*")}
    dead = {owner.mark for text in {*marks, *roots} if (owner := Owner.parse(text)) and not owner.is_alive()}
    killed = sweep(Target(mark=mark, directory=roots.get(mark)) for mark in dead) if dead else 0
    for mark in dead & roots.keys():
        remove_tree(roots[mark])
    return killed


def remove_tree(path: Path) -> None:
    """Remove a directory whole, even if an agent took its permissions away. Missing: fine; what resists stays."""
    for _ in range(3):
        shutil.rmtree(path, ignore_errors=True)
        if not path.is_dir():
            return
        with contextlib.suppress(OSError):
            _open_up(path)


def empty(directory: Path) -> None:
    """Remove all that a directory holds. Missing: fine; what resists stays."""
    with contextlib.suppress(OSError), os.scandir(directory) as entries:
        for entry in entries:
            if entry.is_dir(follow_symlinks=False):
                remove_tree(Path(entry))
            else:
                with contextlib.suppress(OSError):
                    Path(entry).unlink()


def _open_up(directory: Path) -> None:
    directory.chmod(stat.S_IRWXU)
    with os.scandir(directory) as entries:
        for entry in entries:
            if entry.is_dir(follow_symlinks=False):
                _open_up(Path(entry))


def _processes() -> Iterator[tuple[psutil.Process, str | None, str | None]]:
    """All processes that may be looked into, with mark and working directory; never this one."""
    me = os.getpid()
    for pid in psutil.pids():
        if pid in (0, me):
            continue
        try:
            process = psutil.Process(pid)
            mark, directory = process.environ().get(MARK), process.cwd()
        except (psutil.Error, OSError):
            continue  # gone meanwhile, a kernel thread, or someone else's
        if mark is not None or directory:
            yield process, mark, directory


def _kill(process: psutil.Process) -> bool:
    try:
        if process.status() == psutil.STATUS_ZOMBIE:
            return False
        process.kill()
    except psutil.Error:
        return False
    return True


def _started_ms(process: psutil.Process) -> int:
    return round(process.create_time() * 1_000)


def watch(mark: str, root: Path) -> None:
    """Wait for the owner's end (of stdin), then kill what it left and remove its directory."""
    while os.read(sys.stdin.fileno(), 4_096):
        pass
    sweep([Target(mark=mark, directory=root)])
    remove_tree(root)
    # What was being started while we looked: once more, after the sidecar is certainly gone.
    time.sleep(0.2)
    sweep([Target(mark=mark, directory=root)])


if __name__ == "__main__":
    watch(sys.argv[1], Path(sys.argv[2]))
