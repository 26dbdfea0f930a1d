"""What is in a recording: `manifest.json`, written last. A directory without one holds no finished recording."""

import hashlib
import json
import os
import re
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Final, Literal

from pydantic import Field, JsonValue, ValidationError

from agentstream.schemas.base import Instant, Int, WireModel
from agentstream.schemas.recordings import Gap

FORMAT: Final = "agentstream-recording"
VERSION: Final = 1
"""Goes up when a program that knows only the old one would read a recording wrongly."""
MANIFEST: Final = "manifest.json"
SPOOL: Final = "capture.sqlite"
"""What a capture has read so far; removed once the recording is whole."""

_RUNS: Final = re.compile(r"runs-\d{5,}\.jsonl")


class RecordingError(Exception):
    """A recording cannot be used, or cannot be made there. Its text is one line with the reason."""


class RunsFile(WireModel):
    """One file of runs."""

    name: str = Field(pattern=r"^runs-\d{5,}\.jsonl$", description="Its name in the directory.")
    runs: Int = Field(ge=0, description="How many lines it has.")
    bytes: Int = Field(ge=0, description="Its size.")
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$", description="Of its bytes, in hex.")


class TopicRange(WireModel):
    """What was read of one partition of a topic."""

    topic: str = Field(description="The topic's full name.")
    partition: Int = Field(ge=0, description="The partition.")
    log_start: Int = Field(
        ge=0, description="The lowest offset that was still on the log; above 0: older ones are gone."
    )
    first: Int = Field(ge=0, description="The first offset looked at.")
    end: Int = Field(ge=0, description="The offset after the last one looked at.")


class Redaction(WireModel):
    """What one rule took out. Never what it took out."""

    rule: str = Field(description="`secrets`, or the pattern or path as it was given.")
    replaced: Int = Field(ge=0, description="How many places.")
    runs: Int = Field(ge=0, description="In how many runs.")


class LeftOut(WireModel):
    """What was looked at and is not in the recording, beyond what the selection says."""

    rejected: Int = Field(default=0, ge=0, description="Records that were no request.")
    repeated: Int = Field(
        default=0, ge=0, description="Requests whose run id was there already: they did not run again."
    )
    unreadable: Int = Field(default=0, ge=0, description="Records of the output topics that are none of ours.")
    expired: Int = Field(default=0, ge=0, description="Offsets that retention took away while they were to be read.")


class Manifest(WireModel):
    """What is in a recording, where it comes from, and how to tell that nothing was changed since."""

    format: Literal["agentstream-recording"] = Field(default=FORMAT, description="Names the form.")
    version: Int = Field(default=VERSION, ge=1, description="Of the form.")
    agentstream_version: str = Field(description="What wrote it.")
    created_at: Instant = Field(description="When it was begun.")
    finished_at: Instant = Field(description="When it was whole.")
    origin: Literal["topics", "import"] = Field(description="From the topics, or from somebody's own data set.")
    topic_prefix: str | None = Field(default=None, description="What the names of the topics begin with.")
    selection: dict[str, JsonValue] = Field(default_factory=dict, description="Which runs were asked for.")
    topics: tuple[TopicRange, ...] = Field(default=(), description="What was read.")
    runs: Int = Field(ge=0, description="Runs in the recording.")
    sessions: Int = Field(ge=0, description="Sessions they belong to.")
    events: Int = Field(ge=0, description="Events of all of them.")
    statuses: dict[str, Int] = Field(
        default_factory=dict, description="Runs by status; `unfinished`: no result; `case`: of a data set."
    )
    gaps: dict[Gap, Int] = Field(default_factory=dict, description="Runs by what is missing of them.")
    left_out: LeftOut = Field(default_factory=LeftOut, description="What is not in it.")
    redactions: tuple[Redaction, ...] = Field(default=(), description="What was taken out.")
    files: tuple[RunsFile, ...] = Field(description="The files of runs, in order.")

    @property
    def content_hash(self) -> str:
        """A hash of the files' hashes: which recording it is, whatever it is called."""
        return hashlib.sha256("".join(part.sha256 for part in self.files).encode()).hexdigest()


def state_of(directory: Path) -> Literal["empty", "recording", "unfinished", "foreign"]:
    """What a directory holds: nothing, a recording, half of one, or things that are none of ours. Raises OSError."""
    names = {path.name for path in directory.iterdir()} if directory.exists() else set()
    if MANIFEST in names:
        return "recording"
    if not all(name.startswith((SPOOL, MANIFEST)) or _RUNS.fullmatch(name) for name in names):
        return "foreign"
    return "unfinished" if names else "empty"


def our_version() -> str:
    """The version of this distribution; `unknown` where it is not installed."""
    try:
        return version("agentstream-kafka")
    except PackageNotFoundError:
        return "unknown"


def read_manifest(directory: Path) -> Manifest:
    """The manifest of a recording. Raises RecordingError."""
    path = directory / MANIFEST
    if not directory.is_dir():
        raise RecordingError(f"{directory}: no such directory")
    try:
        document = json.loads(path.read_bytes())
    except FileNotFoundError:
        if (directory / SPOOL).exists():
            raise RecordingError(f"{directory}: the capture is unfinished; `--resume` goes on with it") from None
        raise RecordingError(f"{directory}: no recording, {MANIFEST} is missing") from None
    except (ValueError, RecursionError):
        raise RecordingError(f"{path}: not JSON; it is truncated or was changed") from None
    if not isinstance(document, dict) or document.get("format") != FORMAT:
        raise RecordingError(f"{path}: not the manifest of a recording (`format` must be {FORMAT!r})")
    found = document.get("version")
    if isinstance(found, int) and found > VERSION:
        raise RecordingError(
            f"{directory}: the recording has version {found}, this one reads {VERSION} at most: upgrade agentstream"
        )
    try:
        return Manifest.model_validate(document)
    except ValidationError as error:
        where = ".".join(map(str, error.errors()[0]["loc"]))
        raise RecordingError(f"{path}: `{where}` is not as it must be; it was changed") from None


def write_manifest(directory: Path, manifest: Manifest) -> None:
    """Put it in its place at once and for good: whoever sees it sees all of it."""
    path = directory / MANIFEST
    fresh = path.with_suffix(".json.fresh")
    with fresh.open("w", encoding="utf-8") as file:
        file.write(manifest.model_dump_json(exclude_none=True, indent=1) + "\n")
        file.flush()
        os.fsync(file.fileno())
    fresh.replace(path)
