"""Sidecars that lie, babble or die: small programs that speak the protocol badly, under the real supervisor."""

import sys
import textwrap
from pathlib import Path

import pytest

from agentstream.consumers.harness.pi import PiHarness
from agentstream.consumers.harness.port import Credentials
from agentstream.consumers.harness.sidecar import Patience
from agentstream.consumers.harness.sidecar_link import SidecarUnavailable
from agentstream.consumers.redaction import Redactor
from agentstream.schemas.errors import ErrorCode
from tests.integration.pi_fixtures import KEY, Outcome, pi_harness, request, settings
from tests.integration.pi_fixtures import perform as perform_run

PROLOGUE = """
import json, os, sys, time
def say(**line): print(json.dumps(line), flush=True)
def hear(): return json.loads(sys.stdin.readline())
READY = {"type": "ready", "protocol": 1, "pi": "0", "node": "0", "max_line_bytes": 1 << 24, "pid": 1}
def ready(**more): say(**{**READY, **more})
def event(run, n): say(type="event", run=run, n=n, event={"type": "turn.started", "turn": 1})
def done(run, n): say(type="done", run=run, n=n, status="completed", finish_reason="stop")
def serve():
    while True:
        line = hear()
        if line["type"] == "ping": say(type="pong", id=line["id"])
        if line["type"] == "run": return line["run"]
"""

CREDENTIALS = Credentials(name="x", provider="offline", api_key=KEY, base_url="http://127.0.0.1:9")
SLOW_TO_PING = Patience(start=10, ping_interval=30, ping=30, restart=0.05)


def write_fake(directory: Path, body: str) -> Path:
    path = directory / "fake.py"
    path.write_text(PROLOGUE + textwrap.dedent(body))
    return path


async def outcome_of(directory: Path, body: str, *, patience: Patience = SLOW_TO_PING) -> Outcome:
    """What a run gets from a sidecar that is the given program."""
    fake = settings(directory, node=Path(sys.executable), sidecar=write_fake(directory, body), patience=patience)
    async with pi_harness(fake) as harness:
        return await perform_run(harness, request("hi", credentials=CREDENTIALS))


async def test_a_process_that_says_ok_and_exits_with_3_has_failed(tmp_path: Path) -> None:
    outcome = await outcome_of(tmp_path, "ready(); run = serve(); event(run, 1); done(run, 2); sys.exit(3)")
    assert outcome.failed.code is ErrorCode.HARNESS_CRASHED
    assert outcome.failed.detail == "the Pi sidecar ended with 3"


async def test_a_process_that_says_ok_and_exits_with_0_is_believed(tmp_path: Path) -> None:
    outcome = await outcome_of(tmp_path, "ready(); run = serve(); event(run, 1); done(run, 2)")
    assert outcome.finished.finish_reason == "stop"


async def test_what_was_said_before_a_crash_is_still_handed_out(tmp_path: Path) -> None:
    outcome = await outcome_of(tmp_path, "ready(); run = serve(); [event(run, n) for n in range(1, 200)]; os._exit(1)")
    assert len(outcome.events) == 199
    assert outcome.failed.code is ErrorCode.HARNESS_CRASHED


@pytest.mark.parametrize(
    "babble",
    [
        "print('not JSON', flush=True)",
        "say(type='surprise')",
        "say(type='event', run=run, n=1, event={'type': 'turn.started', 'turn': 'one'})",
        "event(run, 2)",
        "event(run, 1); event(run, 1)",
        "ready()",
        "print('x' * (17 << 20), flush=True)",
    ],
)
async def test_a_line_that_cannot_be_trusted_ends_the_process(tmp_path: Path, babble: str) -> None:
    outcome = await outcome_of(tmp_path, f"ready(); run = serve(); {babble}; time.sleep(60)")
    assert outcome.failed.code is ErrorCode.HARNESS_CRASHED
    assert "signal 9" in outcome.failed.detail


async def test_lines_of_runs_that_are_over_harm_nobody(tmp_path: Path) -> None:
    body = "ready(); run = serve(); event('somebody else', 7); done('somebody else', 8); done(run, 1); serve()"
    assert (await outcome_of(tmp_path, body)).finished.finish_reason == "stop"


async def test_a_refused_line_fails_its_run(tmp_path: Path) -> None:
    body = "ready(); run = serve(); say(type='error', run=run, detail='field model is wrong'); serve()"
    outcome = await outcome_of(tmp_path, body)
    assert outcome.failed.code is ErrorCode.INTERNAL
    assert "field model is wrong" in outcome.failed.detail


async def test_an_error_code_of_a_newer_sidecar_becomes_internal(tmp_path: Path) -> None:
    error = "{'code': 'flux', 'detail': 'the flux is low', 'retriable': True}"
    body = f"ready(); run = serve(); say(type='done', run=run, n=1, status='failed', error={error}); serve()"
    outcome = await outcome_of(tmp_path, body)
    assert (outcome.failed.code, outcome.failed.retriable) == (ErrorCode.INTERNAL, True)


async def test_a_sidecar_that_ends_its_runs_unasked_is_tried_again(tmp_path: Path) -> None:
    body = "ready(); run = serve(); say(type='done', run=run, n=1, status='cancelled'); serve()"
    assert (await outcome_of(tmp_path, body)).failed.code is ErrorCode.HARNESS_UNAVAILABLE


async def test_a_sidecar_that_reads_only_short_lines_is_not_sent_longer_ones(tmp_path: Path) -> None:
    outcome = await outcome_of(tmp_path, "ready(max_line_bytes=100); serve(); sys.exit(9)")
    assert outcome.failed.code is ErrorCode.PAYLOAD_TOO_LARGE


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        ("ready(protocol=2); serve()", "protocol 2"),
        ("say(type='pong', id=1); time.sleep(60)", "did not get ready"),
        ("print('hello'); time.sleep(60)", "did not get ready"),
        ("raise SystemError('Error: Cannot find module pi')", "Cannot find module"),
        ("sys.exit(3)", "it ended with 3 and said nothing"),
        ("os.kill(os.getpid(), 9)", "it was killed by signal 9"),
        ("time.sleep(60)", "TimeoutError"),
    ],
)
async def test_a_sidecar_that_does_not_get_ready_is_reported(tmp_path: Path, body: str, reason: str) -> None:
    with pytest.raises(SidecarUnavailable, match=reason):
        await outcome_of(tmp_path, body, patience=Patience(start=1))
    assert [path.name for path in tmp_path.iterdir()] == ["fake.py"]


async def test_a_sidecar_that_cannot_start_again_makes_runs_unavailable_and_health_says_why(tmp_path: Path) -> None:
    body = """
        if os.path.exists(os.path.dirname(__file__) + "/started"): sys.exit("Error: no more memory")
        open(os.path.dirname(__file__) + "/started", "w").close()
        ready(); run = serve(); os._exit(1)
    """
    quick = Patience(start=1, restart=0.05)
    fake = settings(tmp_path, node=Path(sys.executable), sidecar=write_fake(tmp_path, body), patience=quick)
    async with pi_harness(fake) as harness:
        first = await perform_run(harness, request("hi", credentials=CREDENTIALS))
        second = await perform_run(harness, request("hi", credentials=CREDENTIALS))
        assert first.failed.code is ErrorCode.HARNESS_CRASHED
        assert second.failed.code is ErrorCode.HARNESS_UNAVAILABLE
        assert str(tmp_path) not in second.failed.detail
        assert "no more memory" in str(await harness.health())


async def test_the_sidecars_log_is_read_to_its_end_and_carries_no_secret(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    # A log that nobody reads fills its pipe and blocks the process: 1 MiB is sixteen pipes.
    noise = "[print('noise ' * 1000, file=sys.stderr) for _ in range(180)]"
    body = f"ready(); run = serve(); {noise}; print('the key is {KEY}', file=sys.stderr); done(run, 1); serve()"
    fake = settings(tmp_path, node=Path(sys.executable), sidecar=write_fake(tmp_path, body))
    async with PiHarness(fake, redactor=Redactor([KEY])) as harness:
        assert (await perform_run(harness, request("hi", credentials=CREDENTIALS))).finished.finish_reason == "stop"
    assert "the key is [redacted]" in caplog.text
    assert KEY not in caplog.text
