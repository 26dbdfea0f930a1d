"""A worker in a process of its own, to be killed, stopped and woken; its runs end when the test says so.

    async with worker_process(cluster, "b") as worker: …            in the test
    python -m tests.support.worker_process ADDRESS PREFIX NAME     what that starts

Lines on its standard output: `started RUN_ID`. Lines on its standard input: `finish RUN_ID`.
"""

import asyncio
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace

from agentstream.infra.compose import open_worker
from tests.support.cluster import Cluster
from tests.support.gated import GatedHarness, GatedRun
from tests.support.waiting import eventually
from tests.support.workers import plan_of, quick


class WorkerProcess:
    """The test's end of it."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process
        self._reading = asyncio.create_task(self._read(), name="worker process")
        self.started: list[str] = []

    async def _read(self) -> None:
        assert self._process.stdout is not None
        async for line in self._process.stdout:
            self.started.append(line.decode().removeprefix("started ").strip())

    async def until_started(self, run_id: str) -> None:
        """Wait until it has started a run."""
        await eventually(lambda: run_id in self.started, f"{run_id} is started in the other process")

    async def finish(self, run_id: str) -> None:
        """Let a run end, as soon as the process reads it."""
        assert self._process.stdin is not None
        self._process.stdin.write(f"finish {run_id}\n".encode())
        await self._process.stdin.drain()

    def send(self, number: signal.Signals) -> None:
        """Send it a signal."""
        self._process.send_signal(number)

    async def ended(self) -> int:
        """Wait until it has ended; returns its exit code."""
        code = await self._process.wait()
        await self._reading
        return code


@asynccontextmanager
async def worker_process(cluster: Cluster, name: str, *, through: str | None = None) -> AsyncIterator[WorkerProcess]:
    """Start one; at the end it is killed, if it still lives."""
    address = through or cluster.bootstrap_servers
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", __name__, address, cluster.topics.prefix, name),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )
    worker = WorkerProcess(process)
    try:
        yield worker
    finally:
        if process.returncode is None:
            process.send_signal(signal.SIGCONT)
            process.kill()
        await worker.ended()


async def main(address: str, prefix: str, name: str) -> None:
    """Serve until SIGTERM."""
    loop, stop = asyncio.get_running_loop(), asyncio.Event()
    loop.add_signal_handler(signal.SIGTERM, stop.set)

    def say(run: GatedRun) -> None:
        sys.stdout.write(f"started {run.run_id}\n")
        sys.stdout.flush()

    harness = GatedHarness(on_start=say)

    def obey() -> None:
        _, run_id = sys.stdin.readline().split()
        for run in harness.of(run_id):
            run.finish()

    loop.add_reader(sys.stdin, obey)
    # One slot, so that a second request waits.
    plan = replace(quick(plan_of(Cluster(address, prefix), harness, name=name)), max_in_flight=1)
    async with open_worker(plan) as worker:
        await worker.serve(stop, grace_s=2.0)


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
