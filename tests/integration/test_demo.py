"""`make demo` itself: real Kafka, real worker processes, the real Pi with the offline model."""

import asyncio
import contextlib
import os
import re
import sys
from pathlib import Path

import psutil

from agentstream.infra.topic_admin import topic_admin
from agentstream.producers.connection import KafkaConnection
from tests.integration.pi_fixtures import marked
from tests.support.waiting import eventually

RECORDED = 14
"""A plain answer, tools, two turns, ten sessions."""
SHADOWED = 5
ROWS = RECORDED + 1 + SHADOWED + 1
"""These, a killed worker, those that a shadow plays as well, a bad record."""


async def test_the_demo_plays_all_eight_scenes_and_leaves_nothing_behind(kafka: str, tmp_path: Path) -> None:
    keys = ("OPENAI_API_KEY", "ANTHROPIC_API_KEY", "KAFKA_BOOTSTRAP_SERVERS")
    inherited = {name: value for name, value in os.environ.items() if name not in keys}
    demo = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "agentstream.infra.demo"),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
        cwd=tmp_path,
        env={**inherited, "KAFKA_BOOTSTRAP_SERVERS": kafka, "TMPDIR": str(tmp_path)},
    )
    said = (await demo.communicate())[0].decode()
    assert demo.returncode == 0, said
    assert "Model: offline. It follows a script" in said
    assert "All eight scenes went well." in said
    assert "\x1b" not in said, "a pipe gets plain text"
    _judges_a_change(said)
    _shadows(said)
    _, _, end = said.partition("\nscene ")
    table, _, tree = end.partition("What happened to the run whose worker was killed")
    rows = [line for line in table.splitlines() if re.search(r"\b[0-9a-f]{32}\b", line)]
    assert len(rows) == ROWS
    assert sum("completed" in row for row in rows) == ROWS - 1
    assert any(re.search(r"killed with -9 +completed +1 ", row) for row in rows)
    assert re.search(r"invoke_agent pi .* worker_lost.*, written by the next owner", tree), tree
    assert re.search(r"invoke_agent pi .* after a lost attempt", tree), tree
    assert any(re.search(r"a bad record +malformed_json .*†", row) for row in rows)
    async with topic_admin(KafkaConnection(bootstrap_servers=kafka)) as admin:
        left = [name for name in await admin.names() if name.startswith("agentstream-demo-")]
    assert left == [], "on somebody's own cluster the demo takes its topics away again"
    await eventually(lambda: not _processes_in(tmp_path), "no process of a worker, killed ones included, is left")
    await eventually(lambda: not list(tmp_path.iterdir()), "no temporary directory is left")


def _judges_a_change(said: str) -> None:
    """The change takes bash away: exactly the one run that used it is worse."""
    _, _, scene = said.partition("\n7. Judge a change")
    scene, _, _ = scene.partition("\nscene ")
    assert f"recorded: {RECORDED} runs of {RECORDED - 1} sessions" in scene
    assert f"replayed frozen: {RECORDED} runs, 0 diverged" in scene
    assert "answered from the recording: 1, really run: 0" in scene
    assert re.search(rf"^tools +100\.0% .* 0 +1 +{RECORDED} ", scene, re.MULTILINE), scene
    assert "\nverdict: FAILED\n" in scene
    assert "topics of the demo end where they did before" in scene


def _shadows(said: str) -> None:
    """The same change, while requests come: the two that use bash are worse, and the shadow leaves no record."""
    _, _, scene = said.partition("\n8. A shadow")
    scene, _, _ = scene.partition("\nscene ")
    assert "pairs use the same tools, 0 tools really ran" in scene
    assert f"shadow: 3 of {SHADOWED} pairs use the same tools" in scene
    assert scene.count("ALARM: pass_rate(tools) < baseline") == 1, scene
    assert f"Each record of this scene is of one of these {SHADOWED} runs" in scene


def _processes_in(folder: Path) -> list[int]:
    """Marked processes that work below the folder: other tests may run theirs elsewhere."""
    found = []
    for process in marked():
        with contextlib.suppress(psutil.Error, OSError):
            if Path(process.cwd()).is_relative_to(folder):
                found.append(process.pid)
    return found
