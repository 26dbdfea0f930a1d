"""Which event loop a worker gets."""

import sys

import pytest

from agentstream.infra import event_loop
from agentstream.infra.settings_file import SettingsError
from agentstream.infra.settings_types import EventLoop


def loop_of(wanted: EventLoop) -> str:
    """The loop on which `run` runs something."""
    found = []

    async def look() -> None:
        found.append(event_loop.running_loop())

    event_loop.run(look(), wanted)
    (name,) = found
    return name


@pytest.mark.parametrize(("wanted", "given"), [("auto", "uvloop"), ("uvloop", "uvloop"), ("asyncio", "asyncio")])
def test_uvloop_is_used_where_it_is_installed_unless_pythons_own_is_wanted(wanted: EventLoop, given: str) -> None:
    assert loop_of(wanted) == given


def test_without_uvloop_a_worker_runs_on_pythons_own_loop_unless_it_was_told_to_use_uvloop(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "uvloop", None)
    assert loop_of("auto") == loop_of("asyncio") == "asyncio"
    with pytest.raises(SettingsError, match=r"^AGENTSTREAM_EVENT_LOOP: .*pip install 'agentstream-kafka\[uvloop\]'"):
        loop_of("uvloop")
