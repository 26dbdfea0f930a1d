"""A recording and its replay that grow side by side: `recording/` and `replay/` in one directory.

A run is recorded before it is played, and played before its offset is committed: killed with -9 at any point, what was
recorded and not played is played first, and what comes once more is known. Closed in peace, both are what `capture`
and `replay` leave, and `compare` reads them.
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from datetime import datetime
from pathlib import Path
from types import TracebackType
from typing import Self

from agentstream.consumers.replay.playing.directory import ReplayDirectory, ReplayManifest, read_manifest
from agentstream.consumers.replay.playing.terms import ReplayTerms
from agentstream.consumers.replay.recording.assembling import assemble
from agentstream.consumers.replay.recording.files import RecordingReader, RecordingWriter
from agentstream.consumers.replay.recording.manifest import MANIFEST, RecordingError
from agentstream.consumers.replay.recording.redacting import Rules
from agentstream.consumers.replay.shadowing.following import EndedRun
from agentstream.schemas.recordings import RecordedRun

RECORDING = "recording"
REPLAY = "replay"


def shadow_manifest(terms: ReplayTerms, *, shadow_id: str, begun_at: datetime) -> ReplayManifest:
    """That of a shadow which begins: its recording is empty as yet."""
    return ReplayManifest(
        id=shadow_id, created_at=begun_at, recording=RECORDING, recording_hash="", runs=0, terms=terms
    )


class ShadowDirectory:
    """One shadow on disk, open for more runs. `with` closes it; only one process at a time."""

    def __init__(self, path: Path, replay: ReplayDirectory, rules: Rules, topic_prefix: str) -> None:
        """Made by `open`."""
        self.path = path
        self.replay = replay
        """What the candidate answered."""
        self._rules = rules
        self._topic_prefix = topic_prefix
        self._turns: Counter[str] = Counter()
        self._recorded: set[str] = set()
        self._writer: RecordingWriter
        self._stack = ExitStack()
        self._made = False

    @classmethod
    def open(cls, path: Path, wanted: ReplayManifest, rules: Rules, *, topic_prefix: str) -> Self:
        """Begin there, or go on. Raises ReplayError for other terms or another process, RecordingError for damage."""
        if path.exists() and any(one.name not in {RECORDING, REPLAY} for one in path.iterdir()):
            raise RecordingError(f"{path}: is neither empty nor a shadow")
        recording, made = path / RECORDING, not path.exists()
        with ExitStack() as stack:
            # The replay's lock comes first: what is below belongs to whoever holds it.
            directory = cls(path, stack.enter_context(_replay(path / REPLAY, wanted)), rules, topic_prefix)
            if (recording / MANIFEST).exists():
                # Without its manifest nobody would ever see that it was changed, or is of a newer version.
                RecordingReader.open(recording)
                (recording / MANIFEST).unlink()
            directory._writer = stack.enter_context(RecordingWriter.open(recording, resume=True))
            for run in directory.runs():
                directory._note(run)
            directory._made = made
            directory._stack = stack.pop_all()
        return directory

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._stack:
            # Also after an error: what is there is whole, and opening it again takes the manifest away.
            if self._writer.runs:
                manifest = self._writer.finish(
                    origin="topics", topic_prefix=self._topic_prefix, redactions=self._rules.report()
                )
                self.replay.settle(manifest.content_hash, manifest.runs)

    def withdraw(self) -> None:
        """Leave nothing of a shadow that could not begin to follow. Still to be closed. Raises OSError."""
        if not self._writer.runs and self.replay.withdraw():
            (self.path / RECORDING).rmdir()
            if self._made:
                self.path.rmdir()

    def __len__(self) -> int:
        """How many runs are recorded."""
        return self._writer.runs

    def runs(self) -> Iterator[RecordedRun]:
        """What is recorded, in order."""
        self._writer.flush()
        for part in sorted((self.path / RECORDING).glob("runs-*.jsonl")):
            with part.open("rb") as file:
                yield from (RecordedRun.model_validate_json(line) for line in file)

    def unplayed(self) -> Iterator[RecordedRun]:
        """What an interruption left recorded and not played."""
        return (run for run in self.runs() if (run.run_id, 0) not in self.replay)

    def record(self, ended: Sequence[EndedRun]) -> list[RecordedRun]:
        """Record what is new of these, for as long as the disk keeps it. Raises OSError, RecordingError."""
        added = []
        for one in ended:
            if one.result.run_id in self._recorded:
                continue
            turn = self._turns[one.request.session_id or ""]
            # Events are left out: the topic of deltas is by far the largest, and a hybrid replay needs none.
            run, line = self._rules.line(assemble(one.request, one.result, (), source=one.source, turn=turn))
            self._writer.append(run, line)
            self._note(run)
            added.append(run)
        self._writer.flush()
        return added

    def _note(self, run: RecordedRun) -> None:
        self._turns[run.session_id] += 1
        self._recorded.add(run.run_id)


def _replay(path: Path, wanted: ReplayManifest) -> ReplayDirectory:
    if (path / MANIFEST).exists():
        # Its recording has grown, or is about to: only its terms must be the same.
        wanted = wanted.model_copy(update={"recording_hash": read_manifest(path).recording_hash})
    return ReplayDirectory.open(path, wanted, anew="another directory begins anew")
