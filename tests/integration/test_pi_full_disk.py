"""A full disk where the worker's temporary directories go."""

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from agentstream.consumers.harness.pi import PiHarness
from agentstream.consumers.harness.sidecar_link import SidecarUnavailable
from agentstream.infra.harnesses import pi_settings
from agentstream.infra.offline_model import OfflineModel
from agentstream.infra.settings import Settings
from agentstream.schemas.errors import ErrorCode
from tests.chaos.pi_disk import Disk, small_disk
from tests.integration.pi_fixtures import credentials, eventually, marked, perform, pi_harness, request, settings


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Disk]:
    with small_disk(tmp_path / "disk") as made:
        if not made.is_small:
            pytest.skip("no file system can be mounted here")
        yield made


async def test_a_harness_that_gets_no_directory_says_so_and_leaves_nothing(disk: Disk) -> None:
    async with disk.full("files", list):
        with pytest.raises(SidecarUnavailable, match=r"no directory can be made in .*: No space left on device"):
            async with pi_harness(settings(disk.path)):
                pass
    assert list(disk.path.iterdir()) == []
    assert marked(f"{os.getpid()}.") == []


async def test_without_room_for_a_file_runs_with_tools_fail_by_name_and_go_on_once_there_is_room(disk: Disk) -> None:
    async with OfflineModel() as model, pi_harness(settings(disk.path)) as harness:
        wanted = [request("[[say: hi]]", credentials=credentials(model), tools=tools) for tools in (("read",), ())]
        async with disk.full("files", list):
            failed = (await perform(harness, wanted[0])).failed
            assert (await perform(harness, wanted[1])).text == "hi", "without tools it needs no room"
        assert (failed.code, failed.detail) == (
            ErrorCode.HARNESS_UNAVAILABLE,
            "no working directory: No space left on device",
        )
        assert (await perform(harness, wanted[0])).text == "hi"


async def test_a_sidecar_that_dies_while_the_disk_is_full_comes_back(disk: Disk) -> None:
    async with OfflineModel() as model, pi_harness(settings(disk.path)) as harness:
        first = harness.sidecar_pid
        async with disk.full("files", list):
            _kill(harness)
            await eventually(lambda: harness.sidecar_pid not in (None, first))
            assert await harness.health() is None
        assert (await perform(harness, request("[[say: hi]]", credentials=credentials(model)))).text == "hi"


@pytest.mark.parametrize("tool", ["write", "bash"])
async def test_a_tool_that_finds_no_room_tells_the_model_and_the_run_goes_on(disk: Disk, tool: str) -> None:
    calls = {
        "write": '[[tool:write {"path": "a", "content": "' + "x" * 100_000 + '"}]]',
        "bash": '[[tool:bash {"command": "seq 1 100000 > a || exit 1"}]]',
    }
    async with OfflineModel() as model, pi_harness(settings(disk.path)) as harness, disk.full("bytes", list):
        outcome = await perform(
            harness, request(f"{calls[tool]}[[say: went on]]", credentials=credentials(model), tools=(tool,))
        )
    assert outcome.text == "went on"
    answer = outcome.messages[1].parts[0]
    assert answer.type == "tool_call_response"
    assert answer.is_error
    assert "no space left on device" in str(answer.response).lower()


async def test_the_directory_that_is_configured_is_used_even_when_it_is_full(
    disk: Disk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TMPDIR", str(disk.path))
    async with disk.full("bytes", list):
        assert pi_settings(Settings()).temporary == disk.path
    monkeypatch.setenv("TMPDIR", str(disk.path / "is-not-there"))
    assert pi_settings(Settings()).temporary.is_dir()


def _kill(harness: PiHarness) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(harness.sidecar_pid or 0, 9)
