"""The programs of docs/examples, run as somebody would run them: against a real Kafka, with a worker of its own."""

import asyncio
import json
import re
import shutil
import subprocess
import sys
import time
import zlib
from contextlib import closing
from pathlib import Path

import pytest
from aiokafka import AIOKafkaProducer
from aiokafka.partitioner import murmur2
from confluent_kafka import OFFSET_BEGINNING, Consumer, TopicPartition

from agentstream.infra.toolchain import kafka_jars
from tests.integration.example_fixtures import EXAMPLES, PARTITIONS, environment, loaded, served
from tests.support.waiting import WAIT_SECONDS

__all__ = ["served"]


def java(example: str) -> list[str]:
    """The command of a Java example; skips the test where there is no JDK, or no jars of Kafka."""
    found = shutil.which("java")
    modules = subprocess.run([found, "--list-modules"], capture_output=True, text=True, check=False) if found else None
    if found is None or modules is None or "jdk.compiler@" not in modules.stdout:
        pytest.skip("no JDK on the PATH: a single source file needs its compiler")
    jars = kafka_jars()
    if jars is None:
        pytest.skip("no jars of Kafka: `make bootstrap` fetches them, where Maven is")
    # Not slowed down by a compiler that pays off after minutes only.
    return [found, "-XX:TieredStopAtLevel=1", "-cp", f"{jars}/*", str(EXAMPLES / example)]


def command_of(example: str) -> list[str]:
    return java(example) if example.endswith(".java") else [sys.executable, str(EXAMPLES / example)]


def run(example: str, *arguments: str, env: dict[str, str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*command_of(example), *arguments], env=env, capture_output=True, text=True, timeout=WAIT_SECONDS, check=False
    )


def test_the_python_client_asks_watches_converses_and_cancels(served: dict[str, str]) -> None:
    done = run("python_client.py", env=served)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines() == [
        "invoke: completed: You said: Name a river.",
        "stream: You said: Name a lake.",
        "stream: completed after 5 deltas, tokens: [7]",
        "session: You said: What is my name?",
        "session: user said: My name is Ada.",
        "session: assistant said: You said: My name is Ada.",
        "session: user said: What is my name?",
        "session: assistant said: You said: What is my name?",
        "cancel: cancelled",
    ]


def test_the_client_of_scripts_asks_watches_and_converses(served: dict[str, str]) -> None:
    done = run("sync_client.py", env=served)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines() == [
        "invoke: completed: You said: Name a river.",
        "stream: You said: Name a lake.",
        "stream: completed, tokens: [7]",
        "session: You said: What is my name?",
        "session: 4 messages",
    ]


def test_plain_aiokafka_prints_the_words_and_the_result_and_joins_the_trace(served: dict[str, str]) -> None:
    done = run("plain_aiokafka.py", "Name a river.", env=served)
    assert (done.returncode, done.stderr) == (0, "")
    first, words, result, last = done.stdout.splitlines()
    assert words == "You said: Name a river."
    status, _, messages = result.partition(": ")
    assert status == "completed"
    assert [part["content"] for message in json.loads(messages) for part in message["parts"]] == [words]
    trace_id = first.rpartition("trace ")[2]
    assert re.fullmatch("[0-9a-f]{32}", trace_id)
    assert last.startswith(f"trace of the result: {trace_id}, tokens: ")


@pytest.mark.parametrize("example", ["plain_aiokafka.py", "librdkafka.py", "AskAgent.java"])
def test_every_client_sends_a_session_to_the_partition_that_murmur2_says(served: dict[str, str], example: str) -> None:
    # One that CRC32, librdkafka's own choice, would send elsewhere.
    session = next(
        name for name in (f"s{n}" for n in range(100)) if zlib.crc32(name.encode()) % PARTITIONS != placed(name)
    )
    done = run(example, "Name a river.", session, env=served)
    assert (done.returncode, done.stderr) == (0, "")
    (partition,) = re.findall(r"^run \S+ in partition (\d+)", done.stdout, re.MULTILINE)
    assert int(partition) == placed(session)
    (messages,) = re.findall(r"^completed: (\[.*\])$", done.stdout, re.MULTILINE)
    assert json.loads(messages)[-1]["parts"][0]["content"] == "You said: Name a river."


def until_answered(served: dict[str, str], run_id: str) -> None:
    """Return once the run's result is on the log, for everybody to see."""
    topic = served["AGENTSTREAM_TOPIC_PREFIX"] + "assistant-messages"
    settings = {"bootstrap.servers": served["KAFKA_BOOTSTRAP_SERVERS"], "group.id": run_id, "enable.auto.commit": False}
    with closing(Consumer(settings)) as consumer:
        consumer.assign([TopicPartition(topic, number, OFFSET_BEGINNING) for number in range(PARTITIONS)])
        end = time.monotonic() + WAIT_SECONDS
        while not any(run_id.encode() in (message.value() or b"") for message in consumer.consume(100, timeout=0.2)):
            assert time.monotonic() < end, f"{run_id} has no result"


async def test_plain_aiokafka_sees_an_answer_that_comes_before_the_acknowledgement(
    served: dict[str, str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    class Slow(AIOKafkaProducer):  # type: ignore[misc]
        async def send_and_wait(self, topic: str, value: bytes, **options: object) -> object:
            sent = await super().send_and_wait(topic, value, **options)
            await asyncio.to_thread(until_answered, served, json.loads(value)["id"])
            return sent

    for name in ("KAFKA_BOOTSTRAP_SERVERS", "AGENTSTREAM_TOPIC_PREFIX"):
        monkeypatch.setenv(name, served[name])
    example = loaded("plain_aiokafka")
    monkeypatch.setattr(example, "AIOKafkaProducer", Slow)
    assert await example.main("hi", "s") == 0
    assert "\nYou said: hi\ncompleted: " in capsys.readouterr().out


def test_librdkafka_sees_an_answer_that_comes_before_the_acknowledgement(
    served: dict[str, str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("KAFKA_BOOTSTRAP_SERVERS", "AGENTSTREAM_TOPIC_PREFIX"):
        monkeypatch.setenv(name, served[name])
    example = loaded("librdkafka")
    send = example.send

    def slow(run_id: str, *rest: str) -> int:
        partition = int(send(run_id, *rest))
        until_answered(served, run_id)
        return partition

    monkeypatch.setattr(example, "send", slow)
    assert example.ask("hi", "s") == 0
    assert "You said: hi" in capsys.readouterr().out


def placed(session: str) -> int:
    return int(murmur2(session.encode()) & 0x7FFFFFFF) % PARTITIONS


@pytest.mark.parametrize(
    ("example", "arguments"),
    [
        ("python_client.py", ()),
        ("sync_client.py", ()),
        ("plain_aiokafka.py", ("hi",)),
        ("librdkafka.py", ("hi",)),
        ("results_to_sqlite.py", ("results.db",)),
        ("AskAgent.java", ("hi",)),
    ],
)
def test_an_unreachable_broker_is_one_line(
    example: str, arguments: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    done = run(example, *arguments, env=environment("127.0.0.1:1", "agent."))
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert line.startswith("error: ")
    assert len(line) > len("error: ") + 10
    assert "Traceback" not in line


def test_the_readers_rule_of_plain_aiokafka_makes_one_transcript_of_zombies_and_repetitions(
    capsys: pytest.CaptureFixture[str],
) -> None:
    reader = loaded("plain_aiokafka").Reader("r")

    def deltas(run_id: str, claim: int, attempt: int, seq: int, *words: str) -> None:
        events = [
            {"type": "part.delta", "part_type": "text", "seq": seq + n, "delta": word} for n, word in enumerate(words)
        ]
        attempt_id = f"{claim}/{attempt}"
        reader.take_deltas(
            {"run_id": run_id, "claim": claim, "attempt": attempt, "attempt_id": attempt_id, "events": events}
        )

    deltas("r", 1, 2, 0, "lost ")
    deltas("other", 9, 9, 0, "not ours ")
    deltas("r", 2, 1, 0, "one ", "two ")
    deltas("r", 1, 2, 1, "zombie ")
    deltas("r", 2, 1, 1, "two ", "three ")  # sent again after a broker was lost, with one more
    reader.result = {"attempt_id": "2/1", "last_seq": 3}
    assert not reader.complete
    deltas("r", 3, 1, 0, "of an attempt that did not count ")
    deltas("r", 2, 1, 3, "four")
    assert reader.complete
    assert capsys.readouterr().out == "lost \n(once more)\none two three four"
