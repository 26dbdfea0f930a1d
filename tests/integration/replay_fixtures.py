"""One Pi and one model, to record with and to replay with."""

import json
from collections.abc import Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from agentstream.consumers.agent_config import WorkerAgentConfig
from agentstream.consumers.harness.pi import PiHarness
from agentstream.consumers.redaction import Redactor
from agentstream.consumers.replay.playing import (
    Budget,
    InProcess,
    Playbacks,
    Player,
    ReplayDirectory,
    ReplayHarness,
    ReplayTerms,
)
from agentstream.consumers.replay.playing.performers import config_of
from agentstream.consumers.runs import Runs
from agentstream.infra.offline_model import OfflineModel
from agentstream.infra.playback import PlaybackEndpoint
from agentstream.schemas.recordings import RecordedRun
from tests.integration.pi_fixtures import ALL_TOOLS, credentials
from tests.support.replays import Case, Replayed, manifest, record, replayed

USAGE = "[[usage: prompt=1000 cached=200 completion=7]]"


@dataclass(frozen=True, kw_only=True)
class PiStage:
    """One Pi and one model, to record with and to replay with."""

    pi: PiHarness
    model: OfflineModel
    directory: Path

    @property
    def config(self) -> WorkerAgentConfig:
        return WorkerAgentConfig(
            harnesses={"pi": self.pi},
            default_model="offline/demo",
            tools=frozenset(ALL_TOOLS),
            credentials={"offline": credentials(self.model)},
        )

    async def record(self, *cases: Case) -> list[RecordedRun]:
        return await record(self.config, cases)

    async def replay(
        self, runs: Sequence[RecordedRun], terms: ReplayTerms, *, pi: Any = None, out: str = "out"
    ) -> Replayed:
        async with AsyncExitStack() as stack:
            playbacks = Playbacks()
            endpoint = await stack.enter_async_context(PlaybackEndpoint(playbacks))
            harnesses = {"pi": ReplayHarness(pi or self.pi, playbacks, endpoint=endpoint.base_url)}
            config = WorkerAgentConfig(
                harnesses=harnesses, default_model="offline/demo", credentials={"offline": credentials(self.model)}
            )
            performer = InProcess(
                Runs(harnesses, redactor=Redactor()), config_of(config, terms.mode, frozenset(ALL_TOOLS))
            )
            opened = stack.enter_context(ReplayDirectory.open(self.directory / out, manifest(len(runs), terms)))
            return replayed(opened, await Player(opened, performer, playbacks, budget=Budget(concurrency=8)).play(runs))


def with_tools(number: int) -> Case:
    """Two turns of tools, the second with two calls side by side, and an answer."""
    first = json.dumps({"command": f"echo {number} | tee kept; echo ü"})
    second, third = json.dumps({"path": "kept"}), json.dumps({"path": "nowhere"})
    text = (
        f"{USAGE}[[think: hm]][[tool:bash {first}]][[tool:read {second}]][[and:read {third}]][[say: It is {number}.]]"
    )
    return Case(text=text, session=f"s{number}", parameters={"tools": ["bash", "read"], "agents_md": "Be exact."})
