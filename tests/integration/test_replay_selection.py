"""`agentstream replay` of a selection: it records first, and goes on with what it recorded."""

import json
from pathlib import Path

import pytest

from agentstream.consumers.replay.playing import read_replay
from agentstream.consumers.replay.recording.files import RecordingReader
from agentstream.infra.cli.exits import CommandError
from agentstream.infra.cli.replay_selection import typed_of
from agentstream.infra.cli.selecting import Typed
from tests.support.captures import made_up_runs
from tests.support.cluster import Cluster
from tests.support.commands import Terminal, at

FIRST = ("limit=3", "--out", "out", "--mode", "frozen", "--harness", "scripted")
OTHER = ("limit=2", *FIRST[1:])


async def test_a_selection_is_recorded_replayed_and_compared(cluster: Cluster, tmp_path: Path) -> None:
    await made_up_runs(cluster, 10, partitions=1, records=1)
    terminal = Terminal(home=tmp_path, environment=at(cluster))
    said = await terminal.type("replay", *FIRST, "--json", code=0)
    assert (json.loads(said.out)["finished"], "3 runs recorded in out/recording" in said.err) == (3, True)
    recorded = {run.run_id for run in RecordingReader.open(tmp_path / "out" / "recording")}
    assert {run.run_id for run in read_replay(tmp_path / "out")[1]} == recorded
    await made_up_runs(cluster, 10, partitions=1, records=1)
    said = await terminal.type("replay", *FIRST, code=0)
    assert "goes on with what was recorded in out/recording" in said.err
    said = await terminal.type("compare", "out", "--eval", "exact", "--json", code=0)
    assert json.loads(said.out)["evaluators"][0]["cases"] == 3
    said = await terminal.type("replay", *OTHER, code=2)
    assert "out: was begun with another selection (limit=3)" in said.err
    await terminal.type("replay", *OTHER, "--restart", code=0)
    assert len(RecordingReader.open(tmp_path / "out" / "recording")) == len(list(read_replay(tmp_path / "out")[1])) == 2
    said = await terminal.type("replay", "session=nobody", "--out", "none", code=2)
    assert ("nothing matches" in said.err, (tmp_path / "none").exists()) == (True, False)


def test_a_selection_has_the_names_of_captures_options() -> None:
    typed = typed_of("since=1d until=2h status=failed status=completed metadata=team=a sample=0.1 seed=7 model=a/b")
    assert typed == Typed(
        since="1d",
        until="2h",
        statuses=["failed", "completed"],
        metadata=["team=a"],
        sample=0.1,
        seed=7,
        models=["a/b"],
    )


@pytest.mark.parametrize(
    ("selection", "why"),
    [
        ("sinc=1d", "did you mean since?"),
        ("since=1d since=2d", "since stands there twice"),
        ("since=1d yesterday", "write a selection as name=value"),
        ("sample=much", "sample: Input should be a valid number"),
        ("session='a", "No closing quotation"),
    ],
)
def test_what_selects_nothing_is_said(selection: str, why: str) -> None:
    with pytest.raises(CommandError, match=why.replace("?", r"\?")):
        typed_of(selection)
