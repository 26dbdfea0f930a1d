"""Where answers come from: the recording, and replays of it. A replay is found by case; neither is held in memory."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO, Protocol

from pydantic import ValidationError

from agentstream.consumers.replay.comparing.answers import Answer, ComparisonError
from agentstream.schemas.recordings import Divergence, RecordedRun, ReplayedRun
from agentstream.schemas.results import InvokeResult

RESULTS = "results.jsonl"


@dataclass(frozen=True, kw_only=True, slots=True)
class Run:
    """One run of a case, before it is evaluated."""

    answer: Answer
    """What evaluators see."""
    divergence: Divergence | None = None
    """Where it left the recording."""


class Answers(Protocol):
    """One side of a comparison."""

    @property
    def name(self) -> str:
        """What it is called in reports."""

    @property
    def notes(self) -> tuple[str, ...]:
        """What a reader must know of it."""

    def runs_of(self, case: RecordedRun) -> tuple[Run, ...] | str:
        """The case's runs by repeat; or why there is none, in one line."""


class Recorded:
    """The recorded answers themselves."""

    name = "recording"
    notes: tuple[str, ...] = ()

    def runs_of(self, case: RecordedRun) -> tuple[Run, ...] | str:
        """The recorded run, if the log had its result."""
        if case.result is None:
            return "the recording has no result of it" + (f" ({', '.join(case.gaps)})" if case.gaps else "")
        return (Run(answer=Answer(case=case, result=case.result)),)


@dataclass(frozen=True, kw_only=True, slots=True)
class GivenAnswers:
    """Results that are in memory, by case: for notebooks and tests."""

    name: str
    """What the side is called."""
    results: Mapping[str, tuple[InvokeResult, ...]]
    """By run id, one result for each repeat."""
    notes: tuple[str, ...] = ()
    """What a reader must know."""

    def runs_of(self, case: RecordedRun) -> tuple[Run, ...] | str:
        """The results given for the case."""
        found = self.results.get(case.run_id, ())
        runs = tuple(Run(answer=Answer(case=case, result=one, repeat=at)) for at, one in enumerate(found))
        return runs or f"{self.name} has no result of it"


@dataclass(kw_only=True, slots=True)
class ReplayAnswers:
    """A replay on disk: where each case's lines begin in `results.jsonl`. Holds 100 bytes a run, and no run."""

    directory: Path
    """The replay's directory."""
    name: str
    """The directory's name."""
    notes: tuple[str, ...] = ()
    """What a reader must know: a last line that was torn."""
    repeats: int | None = None
    """Of each case only the first so many repeats; None: all."""
    _places: dict[str, list[int]] = field(default_factory=dict)

    @classmethod
    def open(cls, directory: Path, *, repeats: int | None = None) -> "ReplayAnswers":
        """Index it. Raises ComparisonError where it is missing, empty or damaged anywhere but in its last line."""
        path = directory / RESULTS
        replay = cls(directory=directory, name=directory.name or str(directory), repeats=repeats)
        try:
            with path.open("rb") as file:
                replay._index(file, path)
        except OSError as error:
            raise ComparisonError(f"{path}: {error.strerror}: is {directory} the directory of a replay?") from None
        if not replay._places:
            raise ComparisonError(f"{path}: has no finished run: let `agentstream replay` go on first")
        return replay

    def _index(self, file: BinaryIO, path: Path) -> None:
        place = 0
        for number, line in enumerate(file, start=1):
            if not line.endswith(b"\n"):
                self.notes = (f"{path.name}: its last line is torn and was left out",)
                return
            try:
                run_id = json.loads(line)["run_id"]
                if not isinstance(run_id, str):
                    raise TypeError("run_id")
            except (ValueError, KeyError, TypeError):
                raise ComparisonError(f"{path}: line {number} is no replayed run") from None
            self._places.setdefault(run_id, []).append(place)
            place += len(line)

    def runs_of(self, case: RecordedRun) -> tuple[Run, ...] | str:
        """The case's runs, one for each repeat: of a repeat written twice, the later one."""
        found: dict[int, ReplayedRun] = {}
        with (self.directory / RESULTS).open("rb") as file:
            for place in self._places.get(case.run_id, ()):
                file.seek(place)
                run = self._run(file.readline(), case)
                if self.repeats is None or run.repeat < self.repeats:
                    found[run.repeat] = run
        if not found:
            return f"{self.name} has no result of it"
        return tuple(
            Run(answer=Answer(case=case, result=run.result, repeat=run.repeat), divergence=run.divergence)
            for _, run in sorted(found.items())
        )

    def _run(self, line: bytes, case: RecordedRun) -> ReplayedRun:
        try:
            return ReplayedRun.model_validate_json(line)
        except ValidationError as error:
            said = error.errors(include_url=False, include_input=False)[0]
            place = ".".join(map(str, said["loc"]))
            raise ComparisonError(f"{self.directory / RESULTS}: {case.run_id}: {place}: {said['msg']}") from None
