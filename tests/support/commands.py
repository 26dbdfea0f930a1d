"""`agentstream` as somebody types it: a process of its own, in a directory of its own."""

import asyncio
import os
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

from tests.support.cluster import Cluster


@dataclass(frozen=True, kw_only=True)
class Terminal:
    """Where commands are typed."""

    home: Path
    """The directory."""
    environment: Mapping[str, str] = field(default_factory=dict)
    """Variables beside PATH and HOME; the scripted harness is allowed unless they say otherwise."""

    @asynccontextmanager
    async def command(
        self, *arguments: str, stdout: int = asyncio.subprocess.PIPE
    ) -> AsyncIterator[asyncio.subprocess.Process]:
        """A command under way; it is killed at the end if it still is. `stdout`: a file descriptor."""
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "agentstream.infra.cli", *arguments),
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
