"""Recordings as files: reading them run by run, and writing them so that whatever kills the writer, it can go on.

reader = RecordingReader.open(directory)      checks the manifest and every hash; raises RecordingError
for run in reader: …                          one after the other, in flat memory

with RecordingWriter.open(directory) as writer:
    writer.append(run)
    writer.finish(origin="topics", …)         hashes and counts; from here on it is a recording
"""

import hashlib
import os
from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime
from io import BufferedWriter
from pathlib import Path
from typing import Final, Literal, Self, TypedDict, Unpack

from pydantic import JsonValue, ValidationError

from agentstream.consumers.replay.recording.manifest import (
    MANIFEST,
    SPOOL,
    LeftOut,
    Manifest,
    RecordingError,
    Redaction,
    RunsFile,
    TopicRange,
    our_version,
    read_manifest,
    write_manifest,
)
from agentstream.schemas.recordings import Gap, RecordedRun

__all__ = ["Manifest", "RecordingError", "RecordingReader", "RecordingWriter"]
PART_BYTES: Final = 256 * 1024 * 1024
"""A file of runs ends with the run that takes it over this size."""


class RecordingReader:
    """The runs of a recording. Iterating opens the files anew, as often as is liked; there is nothing to close."""

    def __init__(self, directory: Path, manifest: Manifest) -> None:
        """Made by `open`."""
        self.directory = directory
        self.manifest = manifest

    @classmethod
    def open(cls, directory: Path, *, verify: bool = True, allow_empty: bool = False) -> Self:
        """Check the manifest, that each file is there and whole, and with `verify` its hash (1 s for about 1 GB).

        Raises RecordingError for what is no recording, unfinished, of a newer version, truncated, changed or empty,
        and where runs lie beside it that its manifest does not name.
        """
        manifest = read_manifest(directory)
        for part in manifest.files:
            _check(directory / part.name, part, verify=verify)
        named = {part.name for part in manifest.files}
        if surplus := sorted(path.name for path in directory.glob("runs-*.jsonl") if path.name not in named):
            # Of another recording that was copied over this one, say: half of what lies here would silently not count.
            raise RecordingError(f"{directory / surplus[0]}: the manifest does not name it; move it away")
        held = sum(part.runs for part in manifest.files)
        if manifest.runs != held:
            raise RecordingError(f"{directory / MANIFEST}: was changed: {manifest.runs:,} runs, the files {held:,}")
        if manifest.runs == 0 and not allow_empty:
            raise RecordingError(f"{directory}: the recording is empty, it holds no runs")
        return cls(directory, manifest)

    def __len__(self) -> int:
        return self.manifest.runs

    def __iter__(self) -> Iterator[RecordedRun]:
        """Each run in order: those of one session by their turn. Raises RecordingError for a line that is none."""
        for part in self.manifest.files:
            path = self.directory / part.name
            with path.open("rb") as file:
                for number, line in enumerate(file, start=1):
                    yield _run(line, path, number)


def _check(path: Path, part: RunsFile, *, verify: bool) -> None:
    try:
        size = path.stat().st_size
        if size != part.bytes:
            what = "truncated" if size < part.bytes else "longer than it was"
            raise RecordingError(f"{path}: {what}: {size:,} bytes, the manifest says {part.bytes:,}")
        if verify and _hash(path) != part.sha256:
            raise RecordingError(f"{path}: was changed since it was recorded, its SHA-256 is not the manifest's")
    except FileNotFoundError:
        raise RecordingError(f"{path}: is missing") from None
    except OSError as error:
        raise RecordingError(f"{path}: cannot be read ({error.strerror})") from None


def _hash(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _run(line: bytes, path: Path, number: int) -> RecordedRun:
    try:
        return RecordedRun.model_validate_json(line)
    except ValidationError as error:
        first = error.errors(include_input=False, include_url=False)[0]
        where = ".".join(map(str, first["loc"])) or "the line"
        raise RecordingError(f"{path}:{number}: not a recorded run ({where}: {first['msg']})") from None


class About(TypedDict, total=False):
    """What only he knows who writes a recording. See `Manifest`."""

    origin: Literal["topics", "import"]
    created_at: datetime
    topic_prefix: str | None
    selection: dict[str, JsonValue]
    topics: tuple[TopicRange, ...]
    left_out: LeftOut
    redactions: tuple[Redaction, ...]


class RecordingWriter:
    """Writes runs, in the order in which they are to be read. Closed by `with`.

    Killed at any point, `open(resume=True)` finds how many runs were written whole: `runs` of them; a torn last line is
    cut off, and with `keep` all runs behind so many. Appending must then go on with the next one.
    """

    def __init__(self, directory: Path, *, part_bytes: int = PART_BYTES) -> None:
        """Made by `open`."""
        self._directory = directory
        self._part_bytes = part_bytes
        self._parts: list[RunsFile] = []
        self._file: BufferedWriter | None = None
        self._hash = hashlib.sha256()
        self._lines = self._bytes = 0
        self.runs = 0
        """Runs written so far."""
        self._sessions = self._events = 0
        self._statuses: Counter[str] = Counter()
        self._gaps: Counter[Gap] = Counter()

    @classmethod
    def open(
        cls, directory: Path, *, resume: bool = False, keep: int | None = None, part_bytes: int = PART_BYTES
    ) -> Self:
        """Begin a recording there, or go on with one. Raises RecordingError if there is a recording, or half of one."""
        try:
            directory.mkdir(parents=True, exist_ok=True)
            if (directory / MANIFEST).exists():
                raise RecordingError(f"{directory}: holds a recording already; `--force` writes over it")
            written = sorted(directory.glob("runs-*.jsonl"))
            if written and not resume:
                raise RecordingError(f"{directory}: holds an unfinished recording; `--resume` goes on with it")
            writer = cls(directory, part_bytes=part_bytes)
            for path in written:
                writer._take_up(path, keep)
        except OSError as error:
            raise RecordingError(f"{directory}: cannot be written ({error.strerror})") from None
        return writer

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the file. What was appended can be gone on with."""
        if self._file is not None:
            self._file.close()

    def append(self, run: RecordedRun, line: bytes | None = None) -> None:
        """Write one run. `line`: its bytes where they were made already. Raises OSError."""
        line = (line or run.to_bytes()) + b"\n"
        if self._file is None or self._bytes >= self._part_bytes:
            self._begin_part()
        assert self._file is not None
        self._file.write(line)
        self._count(run, line)

    def flush(self) -> None:
        """What was appended survives the end of this process."""
        if self._file is not None:
            self._file.flush()

    def finish(self, **about: Unpack[About]) -> Manifest:
        """Write the manifest, with which this is a recording."""
        self._end_part()
        now = datetime.now(UTC)
        about.setdefault("created_at", now)
        about.setdefault("origin", "topics")
        manifest = Manifest(
            agentstream_version=our_version(),
            finished_at=now,
            runs=self.runs,
            sessions=self._sessions,
            events=self._events,
            statuses=dict(sorted(self._statuses.items())),
            gaps=dict(sorted(self._gaps.items())),
            files=tuple(self._parts),
            **about,
        )
        write_manifest(self._directory, manifest)
        return manifest

    def _begin_part(self) -> None:
        self._end_part()
        path = self._directory / f"runs-{len(self._parts) + 1:05}.jsonl"
        self._file = path.open("ab")
        self._hash, self._lines, self._bytes = hashlib.sha256(), 0, 0

    def _end_part(self) -> None:
        if self._file is None:
            return
        self._file.flush()
        os.fsync(self._file.fileno())
        self._file.close()
        name = Path(self._file.name).name
        self._file = None
        self._parts.append(RunsFile(name=name, runs=self._lines, bytes=self._bytes, sha256=self._hash.hexdigest()))

    def _take_up(self, path: Path, keep: int | None) -> None:
        """Count what an earlier writer left, and cut off a line that it did not finish."""
        unfull = self._file is not None and self._bytes < self._part_bytes
        if unfull or (keep is not None and self.runs >= keep):
            path.unlink()  # what stands there does not go on from the last run that is kept
            return
        self._begin_part()
        with path.open("rb") as file:
            for number, line in enumerate(file, start=1):
                if not line.endswith(b"\n") or self.runs == keep:
                    break
                self._count(_run(line, path, number), line)
        os.truncate(path, self._bytes)

    def _count(self, run: RecordedRun, line: bytes) -> None:
        self._hash.update(line)
        self._bytes += len(line)
        self._lines += 1
        self.runs += 1
        self._sessions += run.turn == 0
        self._events += len(run.events)
        self._statuses[status_of(run)] += 1
        self._gaps.update(run.gaps)


def status_of(run: RecordedRun) -> str:
    """How it ended; `unfinished` without a result, `case` for a data set's."""
    if run.result is not None:
        return run.result.status
    return "case" if run.source is None else "unfinished"


def clear_runs(directory: Path) -> None:
    """Remove the files of runs."""
    for path in directory.glob("runs-*.jsonl"):
        path.unlink()


def clear_spool(directory: Path) -> None:
    """Remove what a capture has read."""
    for end in ("", "-wal", "-shm", "-journal"):
        (directory / f"{SPOOL}{end}").unlink(missing_ok=True)


def clear(directory: Path) -> None:
    """Remove what captures and imports write, and nothing else."""
    for name in (MANIFEST, f"{MANIFEST}.fresh"):
        (directory / name).unlink(missing_ok=True)
    clear_runs(directory)
    clear_spool(directory)
