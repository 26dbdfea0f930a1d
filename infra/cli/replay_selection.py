"""`agentstream replay 'since=1d sample=0.1'`: a selection in the place of a recording, which is recorded first."""

import difflib
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from pydantic import TypeAdapter, ValidationError

from agentstream.consumers.replay.playing.directory import MANIFEST, RECORDING, read_manifest
from agentstream.consumers.replay.recording.files import RecordingReader
from agentstream.consumers.replay.recording.manifest import state_of
from agentstream.consumers.replay.words import counted
from agentstream.infra.cli.capturing import Mode, Typed, run_capture
from agentstream.infra.cli.context import Context
from agentstream.infra.cli.exits import USAGE, fail
from agentstream.infra.cli.screen import Screen

_SEVERAL: Final = {
    "session": "sessions",
    "run": "runs",
    "status": "statuses",
    "code": "codes",
    "model": "models",
    "metadata": "metadata",
    "from-offset": "from_offsets",
    "to-offset": "to_offsets",
    "redact-pattern": "patterns",
    "redact-path": "paths",
}
_ONCE: Final = ("since", "until", "sample", "seed", "limit")


def is_selection(given: str) -> bool:
    """Whether this is no directory."""
    return "=" in given and not Path(given).exists()


def recording_of(context: Context, given: str, out: Path, *, restart: bool) -> Path:
    """Where the recording is; of a selection it is made in the replay's directory, unless it is there.

    Raises CommandError for a selection that cannot be read, or is another one than before; and as `run_capture`.
    """
    if not is_selection(given):
        return Path(given)
    typed, directory, screen = typed_of(given), out / RECORDING, Screen()
    state = state_of(directory)
    if state == "recording" and not restart:
        before = read_manifest(out).recording if (out / MANIFEST).exists() else given
        if before != given:
            fail(f"{out}: was begun with another selection ({before}); give the same, or --restart begins anew", USAGE)
        screen.note(f"goes on with what was recorded in {directory}")
        return directory
    made = not out.exists()
    resume = state == "unfinished" and not restart
    mode = Mode(resume=resume, force=restart, as_json=False, quiet=True)
    try:
        run_capture(context, directory, typed, mode)
    except BaseException:
        if made and out.exists() and not any(out.iterdir()):
            out.rmdir()
        raise
    screen.note(f"{counted(len(RecordingReader.open(directory, verify=False)), 'run')} recorded in {directory}")
    return directory


def typed_of(selection: str) -> Typed:
    """`name=value` by spaces, with the names of `capture`'s options; what may be repeated there may be here."""
    found: dict[str, object] = {}
    try:
        words = shlex.split(selection)
    except ValueError as error:
        fail(f"{selection}: {error}", USAGE)
    for word in words:
        name, equals, value = word.partition("=")
        if not equals or not value:
            fail(f"{word}: write a selection as name=value, such as 'since=1d status=failed sample=0.1'", USAGE)
        if name in _SEVERAL:
            several = found.setdefault(_SEVERAL[name], [])
            assert isinstance(several, list)
            several.append(value)
        elif name in _ONCE and name not in found:
            found[name] = value
        else:
            fail(f"{word}: {_why_not(name, found)}", USAGE)
    try:
        return TypeAdapter(Typed).validate_python(found)
    except ValidationError as error:
        first = error.errors(include_input=False, include_url=False)[0]
        return fail(f"{'.'.join(map(str, first['loc']))}: {first['msg']}", USAGE)


def _why_not(name: str, found: Mapping[str, object]) -> str:
    if name in found:
        return f"{name} stands there twice"
    near = difflib.get_close_matches(name, [*_SEVERAL, *_ONCE], n=1)
    return f"nothing is selected by {name}" + (f"; did you mean {near[0]}?" if near else "")
