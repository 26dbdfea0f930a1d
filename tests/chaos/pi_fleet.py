"""Workers with the real Pi, their sidecars, and what of them is still there."""

import json
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from agentstream.consumers.harness.sweep import MARK, ROOT_PREFIX
from agentstream.infra.worker_process import STARTED
from tests.chaos.fleet import Fleet
from tests.chaos.pi_disk import Disk
from tests.chaos.pi_model import KEYS

TOOLS = "bash,find,read,write"


@dataclass(kw_only=True)
class PiFleet(Fleet):
    """Workers of one group with the harness `pi`, all with their temporary directories on one disk."""

    disk: Disk
    """The disk."""
    killed: set[int] = field(default_factory=set)
    """Numbers of the workers that the test killed."""

    @property
    def serving(self) -> list[int]:
        """Numbers of the workers that live and were not told to stop."""
        return [
            number
            for number, worker in enumerate(self.workers)
            if worker.returncode is None and number not in self.told_to_stop
        ]

    def has_started(self, number: int) -> bool:
        """Whether the worker serves."""
        return STARTED.encode() in (self.logs / f"worker-{number}.log").read_bytes()

    def sidecars(self, number: int) -> list[psutil.Process]:
        """The worker's Node processes, the shared one first."""
        try:
            children = psutil.Process(self.workers[number].pid).children()
            nodes = [child for child in children if any("main.js" in word for word in child.cmdline())]
            return sorted(nodes, key=lambda node: node.create_time())
        except psutil.Error:
            return []

    async def kill_worker(self, number: int) -> None:
        """Kill -9."""
        self.killed.add(number)
        self.workers[number].kill()
        await self.workers[number].wait()

    def log_lines(self, word: str) -> list[str]:
        """Lines of the workers' logs that hold a word."""
        texts = [path.read_text(errors="replace") for path in sorted(self.logs.glob("worker-*.log"))]
        return [line for text in texts for line in text.splitlines() if word in line]

    def left_behind(self) -> list[str]:
        """Processes and directories of workers that are all gone."""
        found = [str(path.relative_to(self.disk.path)) for path in self.disk.path.glob(f"{ROOT_PREFIX}*")]
        for process in psutil.process_iter():
            try:
                if process.status() != psutil.STATUS_ZOMBIE and self._is_ours(process):
                    found.append(f"{process.pid} {process.cmdline()[:4]}")
            except (psutil.Error, OSError):
                continue
        return found

    def _is_ours(self, process: psutil.Process) -> bool:
        environment = process.environ()
        if environment.get("AGENTSTREAM_TOPIC_PREFIX") == self.prefix:
            return True
        owner = environment.get(MARK, "").partition(".")[0]
        return owner in {str(worker.pid) for worker in self.workers}


def write_settings(directory: Path, base_url: str) -> Path:
    """A settings file with the credentials of the load."""
    path = directory / "agentstream.toml"
    tables = (
        f'[credentials.{name}]\nprovider = "offline"\napi_key = {json.dumps(key)}\n'
        f'base_url = {json.dumps(base_url)}\napi = "openai-completions"\n'
        for name, key in KEYS.items()
    )
    path.write_text("\n".join(tables))
    return path


def pi_fleet(bootstrap_servers: str, prefix: str, logs: Path, *, disk: Disk, base_url: str) -> PiFleet:
    """A fleet whose workers find the model and the disk."""
    return PiFleet(
        bootstrap_servers=bootstrap_servers,
        prefix=prefix,
        logs=logs,
        disk=disk,
        environment={
            "AGENTSTREAM_HARNESSES": "pi",
            "AGENTSTREAM_TOOLS": TOOLS,
            "AGENTSTREAM_CONFIG": str(write_settings(logs, base_url)),
            "AGENTSTREAM_MODEL": "offline/demo",
            "TMPDIR": str(disk.path),
        },
    )
