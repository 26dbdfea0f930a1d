"""A replay on disk: `manifest.json` says what was asked for, `results.jsonl` has one `ReplayedRun` a line.

Results are only ever appended, each with one write: killed with -9 at any point, what is finished stays finished, and a
line that was not written whole is cut off when the replay goes on. The disk is told to keep them every second.
"""

import hashlib
import json
import os
import time
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Final, Literal, Self

from pydantic import Field, JsonValue, ValidationError

from agentstream.consumers.replay.playing.terms import ReplayTerms
from agentstream.schemas.base import Instant, Int, WireModel
from agentstream.schemas.recordings import ReplayedRun

FORMAT: Final = "agentstream-replay"
VERSION: Final = 1
MANIFEST: Final = "manifest.json"
RESULTS: Final = "results.jsonl"
RECORDING: Final = "recording"
"""In a replay's directory: the recording, where it was made for this replay."""
BASELINE: Final = "baseline"
"""In a replay's directory: a replay of its own, of the same runs without the changes."""
_KEEP_EVERY_S: Final = 1.0
_LONGEST: Final = 60


class ReplayError(Exception):
    """A replay cannot be made, read or gone on with. Its text is one line with the reason."""


class ReplayManifest(WireModel):
    """What a replay is of, and under which terms."""

    format: Literal["agentstream-replay"] = Field(default=FORMAT, description="Names the form.")
    version: Int = Field(default=VERSION, ge=1, description="Of the form.")
    id: str = Field(pattern=r"^[a-z0-9]{1,32}$", description="In the names of all it makes: runs, sessions, topics.")
    created_at: Instant = Field(description="When it was begun.")
    recording: str = Field(description="Which recording: its name.")
    recording_hash: str = Field(description="Which recording: a hash of its hashes.")
    runs: Int = Field(ge=0, description="Runs in the recording.")
    terms: ReplayTerms = Field(description="What was asked for.")


class ReplayDirectory:
    """One replay, open for more results. `with` closes it; only one process at a time."""

    def __init__(self, path: Path, manifest: ReplayManifest) -> None:
        """Made by `open`."""
        self.path = path
        self.manifest = manifest
        self._offsets: dict[tuple[str, int], int] = {}
        self._file = -1
        self._end = 0
        self._kept_at = 0.0
        self._begun = False
        """By this process: nothing but itself is in it yet."""
        self._made = False

    @classmethod
    def open(
        cls, path: Path, wanted: ReplayManifest, *, restart: bool = False, anew: str = "--restart begins anew"
    ) -> Self:
        """Begin a replay there, or go on with the one that is there, which must be of the same recording and terms.

        With `restart` what is there is removed first. `anew` tells people how to begin anew. Raises ReplayError, also
        while another process plays there.
        """
        try:
            made = not path.exists()
            path.mkdir(parents=True, exist_ok=True)
            if restart:
                _clear(path)
            manifest = read_manifest(path) if (path / MANIFEST).exists() else None
            if manifest is None:
                if any(one.name not in {RECORDING, BASELINE} for one in path.iterdir()):
                    raise ReplayError(f"{path}: is neither empty nor a replay")
                manifest = wanted
                _write(path / MANIFEST, manifest)
            _check_same(path, manifest, wanted, anew)
            directory = cls(path, manifest)
            directory._take_up()
            directory._made, directory._begun = made, manifest is wanted
        except OSError as error:
            raise ReplayError(f"{path}: cannot be written ({error.strerror})") from None
        return directory

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._file >= 0:
            os.fsync(self._file)
            os.close(self._file)
            self._file = -1

    def __len__(self) -> int:
        return len(self._offsets)

    def __contains__(self, key: tuple[str, int]) -> bool:
        """Whether this repeat of this run has its result."""
        return key in self._offsets

    def read(self, run_id: str, repeat: int) -> ReplayedRun:
        """A result that is there. Raises KeyError."""
        line = os.pread(self._file, self._end - self._offsets[run_id, repeat], self._offsets[run_id, repeat])
        return ReplayedRun.model_validate_json(line.partition(b"\n")[0])

    def add(self, run: ReplayedRun) -> None:
        """Write a result. Raises OSError."""
        line = run.to_bytes() + b"\n"
        rest = memoryview(line)
        while rest:
            rest = rest[os.write(self._file, rest) :]
        self._offsets[run.run_id, run.repeat] = self._end
        self._end += len(line)
        now = time.monotonic()
        if now - self._kept_at > _KEEP_EVERY_S:
            os.fsync(self._file)
            self._kept_at = now

    def withdraw(self) -> bool:
        """Leave nothing of a replay that could not begin; whether it was one. One with results, or of an earlier
        process, stays. Still to be closed; what else lies in its directory keeps that there. Raises OSError.
        """
        if not self._begun or self._offsets:
            return False
        _clear(self.path)
        if self._made and not any(self.path.iterdir()):
            self.path.rmdir()
        return True

    def settle(self, recording_hash: str, runs: int) -> None:
        """Say which recording it is of, where that was written at the same time. Raises OSError."""
        self.manifest = self.manifest.model_copy(update={"recording_hash": recording_hash, "runs": runs})
        _write(self.path / MANIFEST, self.manifest)

    def results(self) -> Iterator[ReplayedRun]:
        """All that is there, in the order in which it was finished."""
        yield from _results(self.path / RESULTS)

    def _take_up(self) -> None:
        import fcntl

        path = self.path / RESULTS
        self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o644)
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(self._file)
            raise ReplayError(f"{self.path}: another process is playing there") from None
        with path.open("rb") as file:
            for number, line in enumerate(file, start=1):
                if not line.endswith(b"\n"):
                    break
                run = _result(line, path, number)
                self._offsets[run.run_id, run.repeat] = self._end
                self._end += len(line)
        os.truncate(path, self._end)


def read_replay(path: Path) -> tuple[ReplayManifest, Iterator[ReplayedRun]]:
    """A replay for whoever compares it, finished or not. Raises ReplayError, also while iterating."""
    return read_manifest(path), _results(path / RESULTS)


def read_manifest(path: Path) -> ReplayManifest:
    """What was asked for. Raises ReplayError."""
    where = path / MANIFEST
    try:
        document = json.loads(where.read_bytes())
    except FileNotFoundError:
        raise ReplayError(f"{path}: no replay, {MANIFEST} is missing") from None
    except (OSError, ValueError, RecursionError):
        raise ReplayError(f"{where}: cannot be read, or is not JSON") from None
    if not isinstance(document, dict) or document.get("format") != FORMAT:
        raise ReplayError(f"{where}: not the manifest of a replay (`format` must be {FORMAT!r})")
    found = document.get("version")
    if isinstance(found, int) and found > VERSION:
        raise ReplayError(f"{path}: the replay has version {found}, this agentstream reads up to {VERSION}")
    try:
        return ReplayManifest.model_validate(document)
    except ValidationError as error:
        raise ReplayError(f"{where}: `{'.'.join(map(str, error.errors()[0]['loc']))}` is not as it must be") from None


def _results(path: Path) -> Iterator[ReplayedRun]:
    if not path.exists():
        return
    with path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            if line.endswith(b"\n"):
                yield _result(line, path, number)


def _result(line: bytes, path: Path, number: int) -> ReplayedRun:
    try:
        return ReplayedRun.model_validate_json(line)
    except ValidationError as error:
        where = ".".join(map(str, error.errors(include_input=False)[0]["loc"])) or "the line"
        raise ReplayError(f"{path}:{number}: not a replayed run ({where})") from None


def _check_same(path: Path, manifest: ReplayManifest, wanted: ReplayManifest, anew: str) -> None:
    if manifest.recording_hash != wanted.recording_hash:
        raise ReplayError(f"{path}: is a replay of another recording ({manifest.recording}); {anew}")
    before, now = _flat(manifest.terms), _flat(wanted.terms)
    different = [
        f"{name} was {before.get(name, 'not given')}, is {now.get(name, 'not given')}"
        for name in sorted({*before, *now})
        if before.get(name) != now.get(name)
    ]
    if different:
        raise ReplayError(f"{path}: was begun with other terms ({'; '.join(different)}); give the same, or {anew}")


def _flat(terms: ReplayTerms) -> dict[str, str]:
    """The terms by the names that people give them: `harness.options.text`, and not `changes`."""
    document = terms.model_dump(mode="json", exclude_none=True)
    changes = document.pop("changes")
    return {name: _short(value) for name, value in _leaves({**document, **changes})}


def _leaves(document: dict[str, JsonValue], above: str = "") -> Iterator[tuple[str, JsonValue]]:
    for name, value in document.items():
        if isinstance(value, dict):
            yield from _leaves(value, f"{above}{name}.")
        else:
            yield f"{above}{name}", value


def _short(value: JsonValue) -> str:
    text = " ".join((value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)).split())
    if len(text) <= _LONGEST:
        return text
    # Two instructions that begin alike must not be told as the same.
    return f"{text[:_LONGEST]}… ({len(text):,} characters, {hashlib.sha256(text.encode()).hexdigest()[:8]})"


def _clear(path: Path) -> None:
    for name in (MANIFEST, f"{MANIFEST}.fresh", RESULTS):
        (path / name).unlink(missing_ok=True)


def _write(where: Path, manifest: ReplayManifest) -> None:
    fresh = where.with_name(f"{MANIFEST}.fresh")
    with fresh.open("w", encoding="utf-8") as file:
        file.write(manifest.model_dump_json(exclude_none=True, indent=1) + "\n")
        file.flush()
        os.fsync(file.fileno())
    fresh.replace(where)
