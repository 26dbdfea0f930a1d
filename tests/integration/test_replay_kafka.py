"""Replays through Kafka: on topics of their own, with a worker of their own, and nobody else's touched."""

import signal
from contextlib import AsyncExitStack
from pathlib import Path

import pytest
from pydantic import JsonValue

from agentstream.consumers.replay.playing import Player, ReplayDirectory, ReplayTerms
from agentstream.infra.replaying import kafka_settings, replay_prefix, through_kafka
from agentstream.infra.settings import KafkaSettings, Settings
from agentstream.infra.settings_file import SettingsError
from agentstream.infra.topic_admin import topic_admin
from agentstream.schemas.recordings import RecordedRun
from agentstream.schemas.requests import AgentParameters
from agentstream.schemas.topics import Topics
from tests.chaos.audit import end_offsets
from tests.integration.replay_fixtures import ended_and_gone_on_with, recorded_at
from tests.support.cluster import Cluster
from tests.support.replays import Case, Replayed, manifest, record_scripted, replayed, scripted

TOOL: dict[str, JsonValue] = {"name": "read", "arguments": {"path": "a"}, "result": "A"}
FROZEN = ReplayTerms(mode="frozen")


async def played(settings: Settings, directory: Path, runs: list[RecordedRun], replay: str) -> Replayed:
    wanted = manifest(len(runs), FROZEN).model_copy(update={"id": replay})
    async with AsyncExitStack() as stack:
        opened = stack.enter_context(ReplayDirectory.open(directory, wanted))
        through = through_kafka(settings, FROZEN, replay=replay, tools=frozenset({"read"}), partitions=2)
        stage = await stack.enter_async_context(through)
        return replayed(opened, await Player(opened, stage.performer, stage.playbacks).play(runs))


def settings_of(cluster: Cluster) -> Settings:
    return Settings(
        kafka=KafkaSettings(bootstrap_servers=cluster.bootstrap_servers),
        topic_prefix=cluster.topics.prefix,
        group_id=cluster.group_id,
        harnesses=("scripted",),
        session_timeout_ms=6_000,
        heartbeat_interval_ms=1_000,
    )


async def test_a_frozen_replay_through_kafka_goes_as_recorded_and_touches_no_other_topic(
    cluster: Cluster, tmp_path: Path
) -> None:
    runs = await record_scripted(
        *(Case(session=f"s{n % 3}", turn=n // 3, parameters=scripted(f"t{n}", TOOL)) for n in range(9))
    )
    runs[4] = runs[4].model_copy(
        update={"request": runs[5].request.model_copy(update={"id": "r4", "session_id": runs[4].session_id})}
    )
    replay = cluster.topics.prefix.strip(".")
    outcome = await played(settings_of(cluster), tmp_path / "out", runs, replay)
    assert {run.run_id: run.divergence.what for run in outcome.runs.values() if run.divergence} == {
        "r4": "another text"
    }
    assert (outcome.tally.finished, outcome.tally.tools_from_recording) == (9, 9)
    assert all(run.result.session_id.startswith(f"replay-{replay}:0:") for run in outcome.runs.values())
    async with topic_admin(cluster.connection) as admin:
        names = await admin.names()
    assert Topics(prefix=replay_prefix(replay)).invoke_requests in names
    mine = cluster.topics
    for topic in (mine.invoke_requests, mine.control, *mine.outputs):
        assert set((await end_offsets(cluster.bootstrap_servers, topic)).values()) == {0}, topic


async def test_a_result_that_kafka_has_is_found_again_by_a_replay_that_was_killed(
    cluster: Cluster, tmp_path: Path
) -> None:
    runs = await record_scripted(Case(parameters=scripted("once", TOOL)), Case(session="b", parameters=scripted("x")))
    changed = runs[1].request.model_copy(update={"parameters": AgentParameters.model_validate(scripted("y"))})
    runs[1] = runs[1].model_copy(update={"request": changed})
    replay = cluster.topics.prefix.strip(".")
    first = await played(settings_of(cluster), tmp_path / "out", runs, replay)
    # It was killed between the result and its own line.
    (tmp_path / "out" / "results.jsonl").write_bytes(b"")
    second = await played(settings_of(cluster), tmp_path / "out", runs, replay)
    for run_id in ("r0", "r1"):
        assert second[run_id].result == first[run_id].result
        assert second[run_id].divergence == first[run_id].divergence
    assert first["r1"].divergence is not None


def test_a_replay_that_would_meet_the_settings_topics_or_group_is_refused() -> None:
    for own in ({"topic_prefix": "replay-x."}, {"group_id": "replay-x"}):
        with pytest.raises(SettingsError, match="are those of the replay itself"):
            kafka_settings(Settings.model_validate(own), "x")
    moved = kafka_settings(Settings(), "x")
    assert (moved.topic_prefix, moved.group_id) == ("replay-x.", "replay-x")


async def test_a_frozen_replay_is_not_left_to_other_workers() -> None:
    with pytest.raises(SettingsError, match="other workers cannot play it"):
        async with through_kafka(Settings(), FROZEN, replay="x", tools=frozenset(), own_worker=False):
            pass


@pytest.mark.parametrize("sent", [signal.SIGKILL, signal.SIGINT])
async def test_a_replay_through_kafka_is_ended_and_gone_on_with(
    cluster: Cluster, tmp_path: Path, sent: signal.Signals
) -> None:
    environment = {
        "KAFKA_BOOTSTRAP_SERVERS": cluster.bootstrap_servers,
        "AGENTSTREAM_TOPIC_PREFIX": cluster.topics.prefix,
        "AGENTSTREAM_SESSION_TIMEOUT_MS": "3000",
        "AGENTSTREAM_HEARTBEAT_INTERVAL_MS": "500",
    }
    terminal = await recorded_at(tmp_path, environment)
    await ended_and_gone_on_with(terminal, sent, "--via", "kafka", "--partitions", "1")
    assert set((await end_offsets(cluster.bootstrap_servers, cluster.topics.invoke_requests)).values()) == {0}
