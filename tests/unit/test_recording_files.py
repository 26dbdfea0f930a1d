"""Recordings as files: whole, torn, changed, foreign, too new."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from agentstream.consumers.replay.recording.files import RecordingError, RecordingReader, RecordingWriter, clear
from agentstream.consumers.replay.recording.manifest import MANIFEST, Manifest, state_of
from tests.support.captures import recorded

RUNS = [recorded(f"run-{turn}", turn=turn, text="x" * 100) for turn in range(10)]


def written(directory: Path, runs: int = 10, *, part_bytes: int = 1_000) -> Path:
    with RecordingWriter.open(directory, part_bytes=part_bytes) as writer:
        for run in RUNS[:runs]:
            writer.append(run)
        writer.finish()
    return directory


def changed(directory: Path, **fields: object) -> None:
    path = directory / MANIFEST
    path.write_text(json.dumps(json.loads(path.read_text()) | fields))


def test_what_was_written_is_read_in_its_order_and_as_often_as_liked(tmp_path: Path) -> None:
    reader = RecordingReader.open(written(tmp_path / "new" / "recording"))
    assert list(reader) == list(reader) == RUNS
    assert len(reader) == 10
    manifest = reader.manifest
    assert len(manifest.files) > 2
    assert sum(part.runs for part in manifest.files) == manifest.runs == 10
    assert (manifest.sessions, manifest.statuses) == (1, {"completed": 10})


def test_a_part_ends_with_the_run_that_takes_it_over_its_size(tmp_path: Path) -> None:
    parts = RecordingReader.open(written(tmp_path)).manifest.files
    assert all(part.bytes >= 1_000 > part.bytes * (part.runs - 1) / part.runs for part in parts[:-1])


def first(directory: Path) -> Path:
    return directory / "runs-00001.jsonl"


BROKEN: list[tuple[Callable[[Path], object], str]] = [
    (lambda d: first(d).write_bytes(first(d).read_bytes()[:-9]), "truncated"),
    (lambda d: (d / "runs-00002.jsonl").unlink(), "runs-00002.jsonl: is missing"),
    (lambda d: first(d).write_bytes(first(d).read_bytes() + b"{}\n"), "longer than it was"),
    (
        lambda d: first(d).write_bytes(first(d).read_bytes().replace(b"completed", b"cancelled", 1)),
        "runs-00001.jsonl: was changed since it was recorded",
    ),
    (lambda d: (d / MANIFEST).unlink(), "manifest.json is missing"),
    (
        lambda d: (d / "runs-00009.jsonl").write_bytes(first(d).read_bytes()),
        "runs-00009.jsonl: the manifest does not n",
    ),
    (lambda d: (d / MANIFEST).write_text((d / MANIFEST).read_text()[:50]), "not JSON; it is truncated or was changed"),
    (lambda d: (d / MANIFEST).write_text("[]"), "not the manifest of a recording"),
    (lambda d: changed(d, format="other"), "not the manifest of a recording"),
    (lambda d: changed(d, version=2), "has version 2, this one reads 1 at most: upgrade agentstream"),
    (lambda d: changed(d, runs=11), "manifest.json: was changed: 11 runs, the files 10"),
    (lambda d: changed(d, runs="many"), "`runs` is not as it must be"),
    (lambda d: changed(d, files=[{"name": "../../etc/passwd"}]), "`files.0.name` is not as it must be"),
]


@pytest.mark.parametrize(("breaking", "why"), BROKEN, ids=[why for _, why in BROKEN])
def test_what_is_broken_is_refused_before_a_run_is_read(
    tmp_path: Path, breaking: Callable[[Path], object], why: str
) -> None:
    breaking(written(tmp_path))
    with pytest.raises(RecordingError) as refused:
        RecordingReader.open(tmp_path)
    assert why in str(refused.value)
    assert "\n" not in str(refused.value)


def test_unknown_fields_of_a_newer_minor_version_are_passed_over(tmp_path: Path) -> None:
    changed(written(tmp_path), mood="good")
    assert len(list(RecordingReader.open(tmp_path))) == 10


def test_where_the_brokers_are_is_not_written_and_older_recordings_that_say_it_are_read(tmp_path: Path) -> None:
    assert "brokers" not in Manifest.model_fields
    changed(written(tmp_path), origin="topics", topic_prefix="agent.", brokers="kafka.internal:9092")
    reader = RecordingReader.open(tmp_path)
    assert len(list(reader)) == 10
    assert "kafka.internal" not in reader.manifest.model_dump_json()


def test_an_empty_recording_is_refused_by_who_needs_runs(tmp_path: Path) -> None:
    written(tmp_path, runs=0)
    with pytest.raises(RecordingError, match="the recording is empty"):
        RecordingReader.open(tmp_path)
    assert list(RecordingReader.open(tmp_path, allow_empty=True)) == []


def test_there_is_no_recording_where_there_is_none(tmp_path: Path) -> None:
    with pytest.raises(RecordingError, match="no such directory"):
        RecordingReader.open(tmp_path / "nowhere")
    with RecordingWriter.open(tmp_path) as writer:
        writer.append(RUNS[0])
    (tmp_path / "capture.sqlite").touch()
    with pytest.raises(RecordingError, match="the capture is unfinished"):
        RecordingReader.open(tmp_path)


def test_a_line_that_is_no_run_is_named_by_its_number(tmp_path: Path) -> None:
    manifest = json.loads((written(tmp_path, part_bytes=10**9) / MANIFEST).read_text())
    path = tmp_path / "runs-00001.jsonl"
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join([*lines[:2], b"{}\n"]))
    changed(tmp_path, files=[manifest["files"][0] | {"bytes": path.stat().st_size}])
    runs = iter(RecordingReader.open(tmp_path, verify=False))
    assert [next(runs), next(runs)] == RUNS[:2]
    with pytest.raises(RecordingError, match=r"runs-00001\.jsonl:3: not a recorded run \(run_id"):
        next(runs)


@pytest.mark.parametrize("cut", [1, 100, 700, 1_500, 3_000])
def test_wherever_a_writer_was_killed_it_goes_on_with_the_next_run(tmp_path: Path, cut: int) -> None:
    whole, torn = written(tmp_path / "whole"), tmp_path / "torn"
    with RecordingWriter.open(torn, part_bytes=1_000) as writer:
        for run in RUNS[:8]:
            writer.append(run)
    for path in sorted(torn.glob("runs-*"), reverse=True):
        size = path.stat().st_size
        path.write_bytes(path.read_bytes()[: max(0, size - cut)])
        cut -= size
        if cut <= 0:
            break
    with pytest.raises(RecordingError, match="unfinished"):
        RecordingWriter.open(torn)
    with RecordingWriter.open(torn, resume=True, part_bytes=1_000) as writer:
        assert 0 < writer.runs < 8
        for run in RUNS[writer.runs :]:
            writer.append(run)
        writer.finish()
    assert list(RecordingReader.open(torn)) == RUNS
    assert RecordingReader.open(torn).manifest.files == RecordingReader.open(whole).manifest.files


@pytest.mark.parametrize("keep", [0, 1, 2, 5])
def test_a_writer_goes_back_to_what_was_noted(tmp_path: Path, keep: int) -> None:
    with RecordingWriter.open(tmp_path, part_bytes=1_000) as writer:
        for run in RUNS:
            writer.append(run)
    with RecordingWriter.open(tmp_path, resume=True, keep=keep, part_bytes=1_000) as writer:
        assert writer.runs == keep
        for run in RUNS[keep:]:
            writer.append(run)
        writer.finish()
    assert list(RecordingReader.open(tmp_path)) == RUNS


def test_what_a_directory_holds_is_told_and_only_ours_is_cleared(tmp_path: Path) -> None:
    assert state_of(tmp_path / "none") == state_of(tmp_path) == "empty"
    (tmp_path / "runs-00001.jsonl").touch()
    assert state_of(tmp_path) == "unfinished"
    with pytest.raises(RecordingError, match="holds an unfinished recording"):
        written(tmp_path)
    clear(tmp_path)
    assert state_of(written(tmp_path)) == "recording"
    (tmp_path / "thesis.txt").touch()
    clear(tmp_path)
    assert state_of(tmp_path) == "foreign"
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]
