"""What the scenes need: a real Kafka, topics, a model, workers as processes, a client."""

import asyncio
import contextlib
import os
import secrets
import shutil
import sys
import tempfile
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

from agentstream.consumers.client import AgentClient
from agentstream.infra.broker import LocalBroker, find_broker
from agentstream.infra.connection import kafka_connection
from agentstream.infra.demo.show import Show
from agentstream.infra.models import OFFLINE_KEY, Chosen, usable_model
from agentstream.infra.settings import OFFLINE, Settings
from agentstream.infra.settings_file import CONFIG_VARIABLE, load_settings
from agentstream.infra.topic_admin import topic_admin
from agentstream.infra.topics import apply_topics, every_topic
from agentstream.producers.connection import KafkaConnection
from agentstream.schemas.topics import Topics

WORKERS = 2
PARTITIONS = 6
SESSION_TIMEOUT_MS = 6_000
"""The shortest that brokers allow: a killed worker's partitions go to another one after this long."""
TRACES = "traces"
_JOIN_SECONDS = 60.0
_STOP_SECONDS = 15.0


class SceneFailed(Exception):
    """A scene did not go as it should."""


@dataclass(kw_only=True)
class Stage:
    """Everything is open."""

    show: Show
    """Where the scenes write."""
    connection: KafkaConnection
    """The cluster."""
    topics: Topics
    """The topics."""
    group_id: str
    """The workers' group."""
    client: AgentClient
    """The caller."""
    offline: bool
    """Whether the model is the offline one."""
    settings: Settings
    """With the model and its credentials, for what runs in this process."""
    home: Path
    """A temporary directory, with the workers' logs."""
    environment: Mapping[str, str]
    """The workers' environment."""
    workers: dict[str, asyncio.subprocess.Process] = field(default_factory=dict)
    """The workers by their client id."""

    @property
    def traces(self) -> Path:
        """Where the workers keep their spans."""
        return self.home / TRACES

    async def start_worker(self, name: str) -> None:
        """Start one more worker, a process of its own."""
        with (self.home / f"{name}.log").open("wb") as log:
            self.workers[name] = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "agentstream.infra.cli", "worker", "--stop-at-eof"),
                # The system closes it when the demo is gone, however that came.
                stdin=asyncio.subprocess.PIPE,
                stdout=log,
                stderr=log,
                env={**self.environment, "KAFKA_CLIENT_ID": name},
                # A Ctrl-C is for the demo, which then stops them.
                start_new_session=True,
            )

    async def joined(self) -> None:
        """Wait until the workers that live share all partitions."""
        async with asyncio.timeout(_JOIN_SECONDS), topic_admin(self.connection) as admin:
            while True:
                members = await admin.members(self.group_id)
                held = sum(len(member.partitions) for member in members)
                if len(members) == len(self.living) and held == PARTITIONS:
                    return
                for name, worker in self.living.items():
                    if worker.returncode is not None:
                        raise SceneFailed(f"{name} ended with {worker.returncode}:\n{self.log_end(name)}")
                await asyncio.sleep(0.05)

    async def owner(self, partition: int) -> str:
        """The worker that holds a partition."""
        async with topic_admin(self.connection) as admin:
            for member in await admin.members(self.group_id):
                if partition in member.partitions:
                    return member.client_id
        raise SceneFailed(f"nobody holds partition {partition}")

    @property
    def living(self) -> dict[str, asyncio.subprocess.Process]:
        """The workers that were not killed."""
        return {name: worker for name, worker in self.workers.items() if worker.returncode != -9}

    async def kill(self, name: str) -> int:
        """Kill a worker with -9; returns its pid."""
        worker = self.workers[name]
        worker.kill()
        await worker.wait()
        return worker.pid

    async def stop_workers(self) -> None:
        """SIGTERM, as a supervisor would; kill -9 for who does not end by itself."""
        for worker in self.workers.values():
            with contextlib.suppress(ProcessLookupError):
                worker.terminate()
        for worker in self.workers.values():
            try:
                async with asyncio.timeout(_STOP_SECONDS):
                    await worker.wait()
            except TimeoutError:
                worker.kill()
                await worker.wait()

    def log_end(self, name: str) -> str:
        """The end of a worker's log."""
        lines = (self.home / f"{name}.log").read_text(encoding="utf-8", errors="replace").splitlines()
        return "\n".join(lines[-15:])


@asynccontextmanager
async def open_stage(show: Show) -> AsyncIterator[Stage]:
    """Start it all, and stop it all at the end. Raises what the parts raise when they cannot start."""
    async with AsyncExitStack() as stack:
        home = Path(tempfile.mkdtemp(prefix="agentstream-demo-"))
        stack.callback(shutil.rmtree, home, ignore_errors=True)
        settings = _settings(home)
        broker = find_broker(progress=show.note)
        own = broker.kind != "external"
        show.note(f"Kafka: {'starting one' if own else broker.bootstrap_servers} ({broker.kind}) …")
        await stack.enter_async_context(broker)
        chosen = await stack.enter_async_context(usable_model(settings))
        show.note(chosen.note)
        # On somebody's own cluster nothing of theirs must be touched.
        name = "agent." if own else f"agentstream-demo-{secrets.token_hex(4)}."
        stage = await _set(stack, show, broker, chosen, home=home, prefix=name)
        if not own:
            stack.push_async_callback(_delete_topics, stage)
        stack.push_async_callback(stage.stop_workers)
        show.note(f"Workers: starting {WORKERS} processes with Pi …")
        for number in range(1, WORKERS + 1):
            await stage.start_worker(f"worker-{number}")
        await stage.joined()
        yield stage


def _settings(home: Path) -> Settings:
    """Keys and the cluster come from the environment, nothing from a file that lies around."""
    empty = home / "empty.toml"
    empty.write_text("")
    return load_settings(empty)


async def _set(
    stack: AsyncExitStack, show: Show, broker: LocalBroker, chosen: Chosen, *, home: Path, prefix: str
) -> Stage:
    topics, group_id = Topics(prefix=prefix), f"{prefix}demo"
    connection = kafka_connection(chosen.settings.kafka, bootstrap_servers=broker.bootstrap_servers)
    await apply_topics(connection, topics, partitions=PARTITIONS)
    client = await stack.enter_async_context(AgentClient(connection=connection, topic_prefix=prefix))
    return Stage(
        show=show,
        connection=connection,
        topics=topics,
        group_id=group_id,
        client=client,
        offline=chosen.offline,
        settings=chosen.settings,
        home=home,
        environment=_environment(chosen, broker.bootstrap_servers, home, topics=topics, group_id=group_id),
    )


def _environment(
    chosen: Chosen, bootstrap_servers: str, home: Path, *, topics: Topics, group_id: str
) -> dict[str, str]:
    config = home / "worker.toml"
    config.touch(mode=0o600)
    if chosen.offline:
        base_url = chosen.settings.credentials[OFFLINE].base_url
        config.write_text(
            f'[credentials.{OFFLINE}]\nprovider = "{OFFLINE}"\napi = "openai-completions"\n'
            f'base_url = "{base_url}"\napi_key = "{OFFLINE_KEY}"\n'
        )
    inherited = {key: value for key, value in os.environ.items() if not key.startswith("AGENTSTREAM_")}
    return inherited | {
        CONFIG_VARIABLE: str(config),
        "KAFKA_BOOTSTRAP_SERVERS": bootstrap_servers,
        "AGENTSTREAM_TOPIC_PREFIX": topics.prefix,
        "AGENTSTREAM_GROUP_ID": group_id,
        "AGENTSTREAM_MODEL": chosen.settings.model or "",
        "AGENTSTREAM_TOOLS": "bash,read",
        "AGENTSTREAM_SESSION_TIMEOUT_MS": str(SESSION_TIMEOUT_MS),
        "AGENTSTREAM_HEARTBEAT_INTERVAL_MS": "1000",
        "AGENTSTREAM_GRACE_SECONDS": "5",
        "AGENTSTREAM_LOG_FORMAT": "json",
        "AGENTSTREAM_TRACE_DIR": str(home / TRACES),
    }


async def _delete_topics(stage: Stage) -> None:
    async with topic_admin(stage.connection) as admin:
        await admin.delete(every_topic(stage.topics))
