"""What a worker's log says of a run."""

import json
import logging
import time
from collections.abc import AsyncIterator, Callable, Iterator
from io import StringIO
from random import Random

import pytest
from pydantic import JsonValue
from structlog.contextvars import get_contextvars

from agentstream.consumers.harness.port import Finished, HarnessEvent, HarnessRequest, Terminal
from agentstream.consumers.harness.scripted import ScriptedHarness
from agentstream.consumers.redaction import Redactor
from agentstream.infra.log_json import JsonLines
from agentstream.infra.run_log import LoggedRuns, log
from tests.unit.playing import Faulty, Scene
from tests.virtual_time import in_virtual_time, now

IDS = {"run_id": "run", "session_id": "session", "trace_id": "a" * 32}


class Heard(logging.StreamHandler[StringIO]):
    """What was said, as records and as lines."""

    def __init__(self) -> None:
        super().__init__(StringIO())
        self.setFormatter(JsonLines(Redactor()))
        self.records: list[logging.LogRecord] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.records.append(record)
        super().emit(record)

    @property
    def lines(self) -> list[dict[str, JsonValue]]:
        return [json.loads(line) for line in self.stream.getvalue().splitlines()]


@pytest.fixture
def heard() -> Iterator[Heard]:
    handler, above, level = Heard(), logging.getLogger("agentstream"), log.getEffectiveLevel()
    above.addHandler(handler)
    log.setLevel(logging.INFO)
    yield handler
    log.setLevel(logging.NOTSET)
    above.removeHandler(handler)
    assert log.getEffectiveLevel() == level


def run(scene: Scene, *, then: Callable[[], None] = lambda: None) -> None:
    """Play a run, and then do something in the same task."""

    async def perform() -> None:
        async with ScriptedHarness() as scripted:
            runs = LoggedRuns({"scripted": scene.harness or scripted}, redactor=Redactor(), rng=Random(1), now=now)
            async for _ in runs.execute(scene.admitted()):
                pass
            assert get_contextvars() == {}
            then()

    in_virtual_time(perform())


def without_time(line: dict[str, JsonValue]) -> dict[str, JsonValue]:
    return {name: value for name, value in line.items() if name != "timestamp"}


def test_a_run_says_that_it_starts_and_how_it_ended(heard: Heard) -> None:
    run(Scene(options={"text": "two words", "delay_ms": 5}, crashes=2))
    started, ended = map(without_time, heard.lines)
    whose = {"level": "info", "logger": "agentstream.infra.run_log", **IDS}
    assert started == {"event": "run started", **whose, "position": "t/5/7", "crashes": 2}
    seconds = ended.pop("seconds")
    assert isinstance(seconds, float)
    assert seconds > 0
    tokens = {name: ended.pop(name) for name in ("input_tokens", "output_tokens") if name in ended}
    assert all(isinstance(number, int) for number in tokens.values())
    assert ended == {"event": "run ended", **whose, "status": "completed", "attempt": 1}


def test_a_failed_run_warns_and_says_why(heard: Heard) -> None:
    run(Scene(options={"fail_attempts": 99}))
    ended = heard.lines[-1]
    assert (ended["event"], ended["level"], ended["status"]) == ("run ended", "warning", "failed")
    assert ended["code"]
    assert ended["detail"]


def test_of_runs_that_go_well_nothing_is_said_at_warning(heard: Heard) -> None:
    log.setLevel(logging.WARNING)
    run(Scene(options={"text": "hello"}))
    assert heard.lines == []
    run(Scene(options={"fail_attempts": 99}))
    assert [line["event"] for line in heard.lines] == ["run ended"]


def test_lines_between_have_the_runs_ids(heard: Heard) -> None:
    async def talk(_: HarnessRequest) -> AsyncIterator[HarnessEvent | Terminal]:
        logging.getLogger("agentstream.talkative").warning("between")
        yield Finished(finish_reason="stop")

    run(Scene(harness=Faulty(talk)))
    (between,) = (line for line in heard.lines if line["event"] == "between")
    assert between.items() >= IDS.items()


def test_a_line_after_the_run_has_its_ids_no_more(heard: Heard) -> None:
    run(Scene(options={"text": "a"}), then=lambda: logging.getLogger("agentstream.after").warning("after"))
    assert heard.lines[-1]["event"] == "after"
    assert not heard.lines[-1].keys() & IDS.keys()


def test_each_line_is_a_record_of_its_own_with_its_own_time(heard: Heard) -> None:
    before = time.time()
    run(Scene(options={"text": "a"}))
    run(Scene(options={"text": "a"}, crashes=1))
    times = [record.created for record in heard.records]
    assert times == sorted(times)
    assert before <= times[0] <= times[-1] <= time.time()
    assert all(record.msecs == pytest.approx(record.created % 1 * 1_000) for record in heard.records)
    starts = [record for record in heard.records if record.getMessage() == "run started"]
    assert [vars(record)["crashes"] for record in starts] == [0, 1]
    # As every handler knows records.
    assert (
        logging.Formatter("%(levelname)s %(filename)s %(message)s").format(starts[0]) == "INFO run_log.py run started"
    )
