"""Runs that lost their sidecar are tried again in processes of their own, some at a time."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import psutil
import pytest

from agentstream.consumers.harness.pi import APART_AT_ONCE, PiHarness
from agentstream.consumers.harness.port import HarnessRequest, Waiting
from agentstream.infra.offline_model import OfflineModel
from agentstream.schemas.errors import ErrorCode
from tests.integration.pi_fixtures import (
    credentials,
    eventually,
    marked,
    perform,
    pi_harness,
    request,
    settings,
)


@pytest.fixture
async def model() -> AsyncIterator[OfflineModel]:
    async with OfflineModel() as opened:
        yield opened


@pytest.fixture
async def harness(tmp_path: Path) -> AsyncIterator[PiHarness]:
    async with pi_harness(settings(tmp_path)) as opened:
        yield opened


def apart(model: OfflineModel, text: str, attempt_id: str) -> HarnessRequest:
    return replace(request(text, credentials=credentials(model)), apart=True, attempt_id=attempt_id)


def processes_apart(harness: PiHarness) -> list[psutil.Process]:
    return [process for process in marked(harness.mark) if process.pid != harness.sidecar_pid]


async def test_runs_apart_wait_for_room_and_say_so(harness: PiHarness, model: OfflineModel) -> None:
    """Sixteen runs that lost their sidecar were tried again one at a time, and eleven failed for waiting too long."""
    told = asyncio.Event()

    async def wait_for_ever() -> None:
        async for event in harness.run(apart(model, "[[say: never]]", "given-up")):
            assert isinstance(event, Waiting)
            told.set()

    async with asyncio.TaskGroup() as group:
        hanging = [
            group.create_task(perform(harness, apart(model, "[[fail:hang]]", f"a{number}")))
            for number in range(APART_AT_ONCE)
        ]
        await eventually(lambda: len(model.calls) == APART_AT_ONCE)
        nodes = processes_apart(harness)
        given_up = asyncio.create_task(wait_for_ever())
        waiting = group.create_task(perform(harness, apart(model, "[[say: at last]]", "waiting")))
        await told.wait()
        given_up.cancel()
        assert len(processes_apart(harness)) == len(nodes) == APART_AT_ONCE
        nodes[0].kill()
        assert ((await waiting).text, waiting.result().waited > 0) == ("at last", True)
        for node in nodes[1:]:
            node.kill()
    assert {task.result().failed.lost_with_others for task in hanging} == {False}


async def test_one_that_stops_waiting_gives_its_place_to_the_next(harness: PiHarness, model: OfflineModel) -> None:
    for number in range(APART_AT_ONCE + 1):
        task = asyncio.create_task(perform(harness, apart(model, "[[fail:hang]]", f"cancelled-{number}")))
        while len(model.calls) <= number:  # no event of ours tells of the model's
            await asyncio.sleep(0.02)
        task.cancel()
        await asyncio.wait({task})
    outcome = await perform(harness, apart(model, "[[say: ok]]", "last"))
    assert (outcome.text, outcome.waited) == ("ok", 0)


@pytest.mark.parametrize("is_apart", [False, True])
async def test_a_killed_sidecar_leaves_no_temporary_file(
    harness: PiHarness, model: OfflineModel, is_apart: bool
) -> None:
    """Long output of a shell call goes to a file there: those of killed sidecars stayed as long as the worker."""
    before = sorted(path.name for path in harness.root.iterdir())
    chatty = replace(
        request('[[tool:bash {"command": "seq 1 60000; sleep 600"}]]', credentials=credentials(model), tools=("bash",)),
        apart=is_apart,
    )
    async with asyncio.TaskGroup() as group:
        task = group.create_task(perform(harness, chatty))
        await eventually(lambda: list(harness.root.glob("tmp*/pi-bash-*.log")))
        killed = sidecar_of(harness, is_apart=is_apart)
        killed.kill()
    assert task.result().failed.code is ErrorCode.HARNESS_CRASHED
    await eventually(lambda: harness.sidecar_pid not in (None, killed.pid))
    assert sorted(path.name for path in harness.root.iterdir()) == before
    assert list(harness.root.glob("tmp*/*")) == []


def sidecar_of(harness: PiHarness, *, is_apart: bool) -> psutil.Process:
    shared = psutil.Process(harness.sidecar_pid)
    if not is_apart:
        return shared
    return next(each for each in processes_apart(harness) if each.exe() == shared.exe())
