"""`agentstream` as somebody types it: a process of its own, in a directory of its own."""

import asyncio
import os
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

from tests.support.cluster import Cluster
from tests.support.waiting import patience


@dataclass(frozen=True, kw_only=True)
class Said:
    """A command that ended."""

    code: int
    out: str
    err: str

    @property
    def rows(self) -> dict[str, list[str]]:
        """The cells of the last table by those of its first column."""
        return {cells[0]: cells[1:] for line in self.out.splitlines() if len(cells := line.split("\t")) > 3}


async def ended(process: asyncio.subprocess.Process) -> Said:
    """What it said until its end."""
    async with patience():
        out, err = await process.communicate()
    assert process.returncode is not None
    return Said(code=process.returncode, out=(out or b"").decode(), err=err.decode())


@dataclass(frozen=True, kw_only=True)
class Terminal:
    """Where commands are typed."""

    home: Path
    """The directory."""
    environment: Mapping[str, str] = field(default_factory=dict)
    """Variables beside PATH and HOME; the scripted harness is allowed unless they say otherwise."""

    async def type(self, *arguments: str, code: int | None = None, variables: Mapping[str, str] | None = None) -> Said:
        """A command until its end, with more variables; `code`: what it must end with."""
        async with replace(self, environment={**self.environment, **(variables or {})}).command(*arguments) as process:
            said = await ended(process)
        assert code in (None, said.code), said
        return said

    def command(
        self, *arguments: str, stdout: int = asyncio.subprocess.PIPE
    ) -> AbstractAsyncContextManager[asyncio.subprocess.Process]:
        """A command under way; it is killed at the end if it still is. `stdout`: a file descriptor."""
        return self.python("-m", "agentstream.infra.cli", *arguments, stdout=stdout)

    @asynccontextmanager
    async def python(
        self, *arguments: str, stdout: int = asyncio.subprocess.PIPE
    ) -> AsyncIterator[asyncio.subprocess.Process]:
        """Python under way, as `command`."""
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, *arguments),
            cwd=self.home,
            env={
                "PATH": os.environ["PATH"],
                "HOME": str(self.home),
                "AGENTSTREAM_HARNESSES": "scripted",
                **self.environment,
            },
            stdout=stdout,
            stderr=asyncio.subprocess.PIPE,
        )
        try:
            yield process
        finally:
            if process.returncode is None:
                process.kill()
                # Not `wait`: it waits for the pipes as well, and one that is full and unread never ends.
                await process.communicate()


def at(cluster: Cluster) -> dict[str, str]:
    """What leads a command to a test's cluster."""
    return {
        "KAFKA_BOOTSTRAP_SERVERS": cluster.bootstrap_servers,
        "AGENTSTREAM_TOPIC_PREFIX": cluster.topics.prefix,
        "AGENTSTREAM_GROUP_ID": cluster.group_id,
    }
