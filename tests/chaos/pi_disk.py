"""A disk that fills: a small tmpfs where one can be mounted, else the limit on the size of a process's files."""

import asyncio
import contextlib
import itertools
import os
import resource
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path

SIZE = "24m"
FILES = 2_000
_AGAIN_S = 0.02


@dataclass(frozen=True, kw_only=True)
class Disk:
    """Where the workers' temporary directories are."""

    path: Path
    """The directory."""
    is_small: bool
    """Whether it is a file system of its own, which can be full."""

    @asynccontextmanager
    async def full(self, of: str, processes: Callable[[], list[int]]) -> AsyncIterator[None]:
        """Not one byte (`bytes`) or file (`files`) more while the body runs; what is freed meanwhile is taken at once.

        Without a disk of our own: no file of `processes` may grow past 4 KiB.
        """
        if not self.is_small:
            with _limited(processes()):
                yield
            return
        numbers = itertools.count()
        with (self.path / "filler").open("wb", buffering=0) as sink:

            def fill() -> None:
                with contextlib.suppress(OSError):
                    while of == "files":
                        (self.path / f"filler-{next(numbers)}").touch()
                for size in (65_536, 4_096, 1):
                    with contextlib.suppress(OSError):
                        while of == "bytes":
                            sink.write(bytes(size))

            fill()
            filler = asyncio.create_task(_again_and_again(fill), name="filler")
            try:
                yield
            finally:
                filler.cancel()
                await asyncio.wait({filler})
                for path in self.path.glob("filler*"):
                    path.unlink()


async def _again_and_again(fill: Callable[[], None]) -> None:
    while True:
        await asyncio.sleep(_AGAIN_S)
        fill()


@contextmanager
def small_disk(path: Path) -> Iterator[Disk]:
    """Mount one, if we may; it is gone at the end."""
    path.mkdir()
    options = f"size={SIZE},nr_inodes={FILES}"
    command = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(path)]  # found by PATH, as a person would
    is_small = (
        sys.platform.startswith("linux")
        and os.geteuid() == 0
        and subprocess.run(command, check=False, capture_output=True).returncode == 0
    )
    try:
        yield Disk(path=path, is_small=is_small)
    finally:
        if is_small:
            # Lazily: what a failed test left running may still work in it.
            subprocess.run(["umount", "-l", str(path)], check=True)


@contextmanager
def _limited(processes: list[int]) -> Iterator[None]:
    def limit(size: int) -> None:
        for pid in processes:
            with contextlib.suppress(ProcessLookupError):
                _, hard = resource.prlimit(pid, resource.RLIMIT_FSIZE)
                resource.prlimit(pid, resource.RLIMIT_FSIZE, (size, hard))

    limit(4_096)
    try:
        yield
    finally:
        limit(resource.RLIM_INFINITY)
