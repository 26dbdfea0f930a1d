"""Production by a real worker, and a shadow beside it as somebody types it."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from pydantic import JsonValue

from agentstream.consumers.replay.playing.directory import read_manifest, read_replay
from agentstream.schemas.messages import Message
from agentstream.schemas.recordings import ReplayedRun
from agentstream.schemas.requests import AgentParameters, InvokeRequest
from tests.chaos.inside import plan_of, serving
from tests.support import commands as typed
from tests.support.cluster import Cluster
from tests.support.waiting import patience

TOOL: dict[str, JsonValue] = {"name": "read", "arguments": {"path": "a"}, "result": "A"}


def asking(run_id: str, **options: JsonValue) -> InvokeRequest:
    """A scripted request of a session of its own."""
    options = {"text": "as it was", "tools": [TOOL], **options}
    return InvokeRequest(
        id=run_id,
        session_id=f"s-{run_id}",
        messages=(Message.of_text("user", "go"),),
        parameters=AgentParameters.model_validate({"harness": {"kind": "scripted", "options": options}}),
    )


def candidate(**changed: JsonValue) -> tuple[str, str]:
    """The same as an option, with changes."""
    options: dict[str, JsonValue] = {"text": "as it was", "tools": [TOOL], **changed}
    return "--set", "harness=" + json.dumps({"kind": "scripted", "options": options})


async def production(cluster: Cluster, *requests: InvokeRequest | str) -> None:
    """Have a worker run them all, and end."""
    wanted = [asking(one) if isinstance(one, str) else one for one in requests]
    for request in wanted:
        await cluster.send(request)
    async with serving(plan_of(cluster.bootstrap_servers, cluster.topics.prefix)):
        await cluster.tail.all_results(*(request.id or "" for request in wanted))


class Terminal(typed.Terminal):
    """Where shadows are begun; theirs goes to `out`."""

    @asynccontextmanager
    async def following(
        self, *options: str, stdout: int = asyncio.subprocess.PIPE
    ) -> AsyncIterator[asyncio.subprocess.Process]:
        """A shadow that follows."""
        async with self.command("shadow", "out", *options, stdout=stdout) as process:
            assert process.stderr is not None
            async with patience():
                said = b""
                while b"following" not in said:
                    said = await process.stderr.readline()
                    assert said, process.returncode
            yield process

    def shadowed(self) -> list[ReplayedRun]:
        """What it has played."""
        where = self.home / "out" / "replay"
        return list(read_replay(where)[1]) if (where / "manifest.json").exists() else []

    def recorded(self) -> int:
        """How many runs it has recorded."""
        files = (self.home / "out" / "recording").glob("runs-*.jsonl")
        return sum(file.read_bytes().count(b"\n") for file in files)

    @property
    def prefix(self) -> str:
        """What the ids of its runs and sessions begin with."""
        return f"replay-{read_manifest(self.home / 'out' / 'replay').id}:0:"

    @property
    def group(self) -> str:
        """Its consumer group."""
        own = read_manifest(self.home / "out" / "replay").id
        return f"{self.environment['AGENTSTREAM_GROUP_ID']}-shadow-{own}"


def terminal_at(cluster: Cluster, home: Path, **more: str) -> Terminal:
    """A terminal from which the cluster is reached."""
    return Terminal(home=home, environment={**typed.at(cluster), **more})


def counts(said: typed.Said) -> dict[str, list[str]]:
    """By evaluator, of the last table: what got better, what got worse, cases."""
    return {name: cells[3:6] for name, cells in said.rows.items()}
