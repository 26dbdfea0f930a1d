"""What the tests of docs/examples share: a worker, and the programs."""

import importlib.util
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from types import ModuleType

import pytest

from tests.architecture.sources import ROOT
from tests.support.waiting import WAIT_SECONDS

__all__ = ["EXAMPLES", "PARTITIONS", "environment", "loaded", "served"]

EXAMPLES = ROOT / "docs" / "examples"
PARTITIONS = 4
DELAY_MS = 300
"""Between two words of an answer: who cancels at the first word of twenty has six seconds."""
_AGENT = {
    "harness": {
        "kind": "scripted",
        "options": {
            "delay_ms": DELAY_MS,
            "usage": {"provider": "none", "model": "none", "input_tokens": 3, "output_tokens": 7},
        },
    }
}


def environment(kafka: str, prefix: str) -> dict[str, str]:
    ours = ("AGENTSTREAM_", "KAFKA_", "OPENAI_", "ANTHROPIC_", "OTEL_")
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(ours)}
    return inherited | {"KAFKA_BOOTSTRAP_SERVERS": kafka, "AGENTSTREAM_TOPIC_PREFIX": prefix}


@pytest.fixture(scope="module")
def served(kafka: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """Give the environment of examples beside which a worker runs, that echoes what it is asked."""
    home = tmp_path_factory.mktemp("examples")
    (home / "agent.json").write_text(json.dumps(_AGENT))
    ours = environment(kafka, f"x{home.stat().st_ino}.")
    workers = ours | {"AGENTSTREAM_HARNESSES": "scripted", "AGENTSTREAM_AGENT_DIR": str(home)}
    command = [sys.executable, "-m", "agentstream.infra.cli"]
    subprocess.run(
        [*command, "topics", "apply", "--partitions", str(PARTITIONS)],
        env=ours,
        check=True,
        stdout=subprocess.DEVNULL,
        timeout=WAIT_SECONDS,
    )
    log = home / "worker.log"
    with log.open("w") as output, subprocess.Popen([*command, "worker"], env=workers, stderr=output) as worker:
        try:
            until = time.monotonic() + WAIT_SECONDS
            while "worker started" not in log.read_text():
                assert worker.poll() is None, log.read_text()
                assert time.monotonic() < until, log.read_text()
                time.sleep(0.05)
            yield ours
        finally:
            worker.kill()


def loaded(example: str) -> ModuleType:
    """An example as a module, for a look at one of its parts."""
    spec = importlib.util.spec_from_file_location(f"example_{example}", EXAMPLES / f"{example}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
