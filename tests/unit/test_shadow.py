"""What a shadow keeps and how it compares, without Kafka."""

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path

import pytest

from agentstream.consumers.redaction import Redactor
from agentstream.consumers.replay.comparing.answers import Answer, NamedEvaluator
from agentstream.consumers.replay.comparing.comparison import SEED, Sources
from agentstream.consumers.replay.comparing.evidence import OfRun, read_lines
from agentstream.consumers.replay.comparing.report import make_report
from agentstream.consumers.replay.comparing.rules import parse_rule
from agentstream.consumers.replay.comparing.sides import Recorded, ReplayAnswers
from agentstream.consumers.replay.comparing.specs import make_evaluators
from agentstream.consumers.replay.playing import ReplayError, ReplayTerms
from agentstream.consumers.replay.recording.files import RecordingError, RecordingReader
from agentstream.consumers.replay.recording.redacting import Rules
from agentstream.consumers.replay.shadowing.following import EndedRun
from agentstream.consumers.replay.shadowing.keeping import ShadowDirectory, shadow_manifest
from agentstream.consumers.replay.shadowing.rolling import RollingComparison
from agentstream.schemas.recordings import RecordedRun, ReplayedRun
from tests.support.captures import recorded
from tests.support.runs import result_of


def opened(path: Path, mode: str = "hybrid", secrets: Sequence[str] = ()) -> ShadowDirectory:
    terms = ReplayTerms.model_validate({"mode": mode})
    manifest = shadow_manifest(terms, shadow_id="s1", begun_at=datetime.now(UTC))
    return ShadowDirectory.open(path, manifest, Rules(Redactor(secrets)), topic_prefix="agent.")


def ended(run_id: str, *, session: str = "s", text: str = "hi") -> EndedRun:
    run = recorded(run_id, session=session, text=text)
    assert run.source is not None
    assert run.result is not None
    return EndedRun(request=run.request, source=run.source, result=run.result)


def played(directory: ShadowDirectory, runs: Sequence[RecordedRun], text: str = "new") -> None:
    for run in runs:
        directory.replay.add(
            ReplayedRun(
                run_id=run.run_id,
                session_id=run.session_id,
                result=result_of(run_id=f"replay-s1:0:{run.run_id}", text=text),
                began_at=datetime.now(UTC),
                seconds=0.1,
            )
        )


@pytest.fixture
def directory(tmp_path: Path) -> Iterator[ShadowDirectory]:
    with opened(tmp_path / "shadow") as one:
        yield one


def test_a_result_that_comes_twice_is_recorded_once_and_turns_are_counted(directory: ShadowDirectory) -> None:
    first = directory.record([ended("a"), ended("a"), ended("b"), ended("c", session="other")])
    again = directory.record([ended("b"), ended("d")])
    assert [(run.run_id, run.turn) for run in (*first, *again)] == [("a", 0), ("b", 1), ("c", 0), ("d", 2)]


def test_what_was_recorded_and_not_played_is_known_after_a_kill(tmp_path: Path) -> None:
    path = tmp_path / "shadow"
    directory = opened(path)
    played(directory, directory.record([ended("a"), ended("b")])[:1])
    # Killed: nothing is closed in peace, and a line is torn.
    directory._stack.close()
    with (path / "recording" / "runs-00001.jsonl").open("ab") as file:
        file.write(b'{"run_id": "torn')
    with opened(path) as after:
        assert [run.run_id for run in after.unplayed()] == ["b"]
        assert [run.turn for run in after.record([ended("a"), ended("b"), ended("c")])] == [2]
    assert [run.run_id for run in RecordingReader.open(path / "recording")] == ["a", "b", "c"]


def test_a_closed_shadow_is_a_recording_and_a_replay_of_it_and_goes_on(tmp_path: Path) -> None:
    path = tmp_path / "shadow"
    for name in ("a", "b"):
        with opened(path) as directory:
            played(directory, directory.record([ended(name)]))
        recording = RecordingReader.open(path / "recording")
        assert directory.replay.manifest.recording_hash == recording.manifest.content_hash
        assert directory.replay.manifest.runs == len(recording)
    assert len(RecordingReader.open(path / "recording")) == 2


def test_other_terms_and_foreign_directories_are_refused(tmp_path: Path) -> None:
    with opened(tmp_path / "shadow") as directory:
        directory.record([ended("a")])
    with pytest.raises(ReplayError, match="other terms"):
        opened(tmp_path / "shadow", "frozen")
    (tmp_path / "foreign").mkdir()
    (tmp_path / "foreign" / "thesis.txt").touch()
    with pytest.raises(RecordingError, match="neither empty nor a shadow"):
        opened(tmp_path / "foreign")


def test_secrets_of_the_settings_are_not_recorded(tmp_path: Path) -> None:
    with opened(tmp_path / "shadow", secrets=["hunter2-hunter2"]) as directory:
        directory.record([ended("a", text="my key is hunter2-hunter2")])
    assert b"hunter2" not in (tmp_path / "shadow" / "recording" / "runs-00001.jsonl").read_bytes()


async def test_the_last_pairs_decide_and_older_ones_are_forgotten(directory: ShadowDirectory, tmp_path: Path) -> None:
    rolling = RollingComparison(
        directory.replay,
        make_evaluators(["exact"]),
        scratch=tmp_path,
        rules=[parse_rule("pass_rate(exact) < 0.5")],
        window=4,
    )
    assert rolling.standing() is None
    states = []
    for number, answer in enumerate(["other"] * 3 + ["ok"] * 3):
        runs = directory.record([ended(f"r{number}", session=f"s{number}")])
        assert runs[0].result is not None
        played(directory, runs, text=answer)
        await rolling.add(runs)
        standing = rolling.standing()
        assert standing is not None
        (exact,) = (one for one in standing.summaries if one.evaluator.name == "exact")
        states.append((exact.cases, len(exact.worse), standing.verdict.state))
    assert [state[:2] for state in states] == [(1, 1), (2, 2), (3, 3), (4, 3), (4, 2), (4, 1)]
    assert [state[2] for state in states[2:]] == ["failed", "failed", "passed", "passed"]


async def test_the_figures_are_those_of_compare(tmp_path: Path) -> None:
    path, rules, specs = tmp_path / "shadow", ("pass_rate(exact) < baseline - 0.02 at 95%", "errors > 5%"), ("exact",)
    with opened(path) as directory:
        rolling = RollingComparison(
            directory.replay, make_evaluators(specs), scratch=tmp_path, rules=[parse_rule(rule) for rule in rules]
        )
        for number in range(30):
            runs = directory.record([ended(f"r{number}", session=f"s{number % 25}")])
            played(directory, runs, text="other" if number % 4 == 0 else "ok")
            await rolling.add(runs)
        standing = rolling.standing()
    assert standing is not None
    sources = Sources(
        recording="recording", baseline=Recorded(), candidate=ReplayAnswers.open(path / "replay"), seed=SEED
    )
    report = await make_report(
        sources, RecordingReader.open(path / "recording"), evaluators=specs, fail_if=rules, out=tmp_path / "report"
    )
    assert standing.verdict == report.verdict
    assert standing.verdict.state == "failed"
    assert standing.summaries == report.summaries


async def test_what_is_kept_of_pairs_does_not_grow_beyond_the_window(
    directory: ShadowDirectory, tmp_path: Path
) -> None:
    def raising(answer: Answer) -> bool:
        raise ValueError(answer.text)

    own = NamedEvaluator(name="own", spec="own", evaluator=raising)
    rolling = RollingComparison(directory.replay, [*make_evaluators(["exact"]), own], scratch=tmp_path, window=5)
    for number in range(40):
        runs = directory.record([ended(f"r{number}")])
        played(directory, runs)
        evidence = await rolling.add(runs)
        assert {line.run_id for line in read_lines(evidence) if isinstance(line, OfRun)} == {f"r{number}"}
    standing = rolling.standing()
    assert standing is not None
    last = [f"r{number}" for number in range(35, 40)]
    assert {name: [pair.run_id for pair in pairs] for name, pairs in standing.comparison.columns.items()} == {
        "exact": last, "errors": last, "own": last,
    }  # fmt: skip
    assert {outcome.error for pair in standing.comparison.columns["own"] for outcome in pair.candidate} == {
        "ValueError: new"
    }


def test_a_recording_that_was_changed_or_is_of_a_newer_version_is_not_gone_on_with(tmp_path: Path) -> None:
    for name, file, old, new, why in (
        ("changed", "runs-00001.jsonl", b'"hi"', b'"ho"', "was changed since it was recorded"),
        ("newer", "manifest.json", b'"version": 1', b'"version": 99', "version 99"),
        ("torn", "runs-00001.jsonl", b"\n", b"", "truncated"),
    ):
        path = tmp_path / name
        with opened(path) as directory:
            played(directory, directory.record([ended("a")]))
        where = path / "recording" / file
        content = where.read_bytes()
        assert old in content
        where.write_bytes(content.replace(old, new))
        with pytest.raises(RecordingError, match=why):
            opened(path)
        assert (path / "recording" / "manifest.json").exists(), "nothing is lost by trying"
        where.write_bytes(content)
        with opened(path) as directory:
            assert len(directory) == 1
