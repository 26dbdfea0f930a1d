"""What a replay leaves on disk, and how it is gone on with."""

from pathlib import Path

import pytest

from agentstream.consumers.replay.playing import ReplayDirectory, ReplayError, ReplayTerms, read_replay
from agentstream.schemas.recordings import RecordedRun
from agentstream.schemas.requests import AgentParameters
from tests.support.replays import Case, manifest, record_scripted, replay, scripted

FROZEN = ReplayTerms(mode="frozen")


@pytest.fixture
async def runs() -> list[RecordedRun]:
    return await record_scripted(*(Case(session=f"s{n}", parameters=scripted(f"t{n}")) for n in range(4)))


async def test_finished_runs_are_not_played_again(tmp_path: Path, runs: list[RecordedRun]) -> None:
    first = await replay(tmp_path, runs[:2])
    again = await replay(tmp_path, runs)
    assert {key: run for key, run in again.runs.items() if key in first.runs} == first.runs
    assert (len(again.runs), again.tally.earlier) == (4, 2)


async def test_a_line_that_was_not_written_whole_is_played_again(tmp_path: Path, runs: list[RecordedRun]) -> None:
    await replay(tmp_path, runs)
    results = tmp_path / "results.jsonl"
    whole = results.read_bytes()
    results.write_bytes(whole[:-20])
    again = await replay(tmp_path, runs)
    assert (len(again.runs), again.tally.earlier) == (4, 3)
    assert results.read_bytes().startswith(whole[: whole[:-1].rindex(b"\n") + 1])


async def test_a_line_in_the_middle_that_is_none_is_not_passed_over(tmp_path: Path, runs: list[RecordedRun]) -> None:
    await replay(tmp_path, runs)
    results = tmp_path / "results.jsonl"
    lines = results.read_bytes().splitlines(keepends=True)
    results.write_bytes(lines[0] + b"{}\n" + b"".join(lines[2:]))
    with pytest.raises(ReplayError, match=r"results.jsonl:2: not a replayed run"):
        await replay(tmp_path, runs)


async def test_it_is_gone_on_with_under_the_same_terms_only(tmp_path: Path, runs: list[RecordedRun]) -> None:
    await replay(tmp_path, runs)
    with pytest.raises(ReplayError, match=r"other terms \(repeats was 1, is 2\)"):
        await replay(tmp_path, runs, ReplayTerms(mode="frozen", repeats=2))
    changes = AgentParameters(agents_md="Be brief. " * 20, tools=())
    named = r"agents_md was not given, is Be brief\..*… \(199 characters, \w{8}\); tools was not given, is \[\]\)"
    with pytest.raises(ReplayError, match=named):
        await replay(tmp_path, runs, ReplayTerms(mode="frozen", changes=changes))
    other = manifest(4, FROZEN).model_copy(update={"recording_hash": "1"})
    with pytest.raises(ReplayError, match="of another recording"):
        ReplayDirectory.open(tmp_path, other)
    with ReplayDirectory.open(tmp_path, other, restart=True) as directory:
        assert len(directory) == 0


async def test_two_processes_do_not_play_into_one_directory(tmp_path: Path) -> None:
    with (
        ReplayDirectory.open(tmp_path, manifest(0, FROZEN)),
        pytest.raises(ReplayError, match="another process is playing there"),
    ):
        ReplayDirectory.open(tmp_path, manifest(0, FROZEN))


async def test_nothing_of_somebody_else_is_written_into(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("years of work")
    with pytest.raises(ReplayError, match="neither empty nor a replay"):
        ReplayDirectory.open(tmp_path, manifest(0, FROZEN), restart=True)
    assert (tmp_path / "thesis.txt").exists()


async def test_whoever_compares_reads_it_finished_or_not(tmp_path: Path, runs: list[RecordedRun]) -> None:
    played = await replay(tmp_path, runs)
    with (tmp_path / "results.jsonl").open("ab") as file:
        file.write(b'{"run_id": "torn')
    found, results = read_replay(tmp_path)
    assert found.terms == FROZEN
    assert {(run.run_id, run.repeat): run for run in results} == played.runs


@pytest.mark.parametrize(
    ("content", "what"),
    [(None, "no replay"), ("x", "not JSON"), ("{}", "format"), ('{"format":"agentstream-replay","version":2}', "2")],
)
def test_what_is_no_replay_is_said(tmp_path: Path, content: str | None, what: str) -> None:
    if content is not None:
        (tmp_path / "manifest.json").write_text(content)
    with pytest.raises(ReplayError, match=what):
        read_replay(tmp_path)
