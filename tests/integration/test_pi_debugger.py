"""No debugger of the sidecar can be opened from outside: it would show the keys of all runs."""

from dataclasses import replace
from pathlib import Path

import pytest

from agentstream.infra.harnesses import pi_settings
from agentstream.infra.offline_model import OfflineModel
from agentstream.infra.settings import Settings
from tests.integration.pi_fixtures import credentials, perform, pi_harness, request


async def test_a_runs_shell_cannot_open_the_sidecars_debugger(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """SIGUSR1 opened it on loopback, where any process of the machine could attach to it and read all runs' keys."""
    script = '[[tool:bash {"command": "kill -USR1 $PPID; sleep 0.5"}]][[say: went on]]'
    async with (
        OfflineModel() as model,
        pi_harness(replace(pi_settings(Settings()), temporary=tmp_path)) as harness,
    ):
        before = harness.sidecar_pid
        outcome = await perform(harness, request(script, credentials=credentials(model), tools=("bash",)))
        assert (outcome.text, harness.sidecar_pid) == ("went on", before)
    assert "ebugger" not in caplog.text
