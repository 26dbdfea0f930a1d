"""A shadow beside a real worker: what it plays, what it says of it, and where that goes."""

import json
import os
import re
import signal
import time
from pathlib import Path

from agentstream.consumers.replay.recording.selection import Selection
from tests.chaos.log import read_topic
from tests.integration.shadow_fixtures import asking, candidate, counts, production, terminal_at
from tests.support.cluster import Cluster
from tests.support.commands import ended
from tests.support.evaluations import evaluations
from tests.support.otlp_receiver import OtlpReceiver
from tests.support.waiting import eventually

RUNS = 12


async def test_a_changed_candidate_is_seen_in_the_sessions_of_the_sample_and_runs_no_tool(
    cluster: Cluster, tmp_path: Path
) -> None:
    run_ids = [f"r{number}" for number in range(RUNS)]
    drawn = [run_id for run_id in run_ids if Selection(sample=0.5, seed=7).draws(f"s-{run_id}")]
    assert 0 < len(drawn) < RUNS
    terminal = terminal_at(cluster, tmp_path)
    options = ("--sample", "0.5", "--seed", "7", "--max-runs", str(len(drawn)), *candidate(text="another answer"))
    rule = "pass_rate(exact) < baseline - 0.02"
    async with terminal.following(*options, "--fail-if", rule) as process:
        await production(cluster, *run_ids)
        said = await ended(process)
    assert said.code == 1, said.err
    assert f"ALARM: {rule}" in said.err
    assert counts(said)["exact"] == ["0", str(len(drawn)), str(len(drawn))]
    replayed = terminal.shadowed()
    assert sorted(run.run_id for run in replayed) == sorted(drawn)
    assert {(run.tools_from_recording, run.tools_real) for run in replayed} == {(1, 0)}


async def test_a_terminal_gets_a_table_for_people(cluster: Cluster, tmp_path: Path) -> None:
    master, terminal_side = os.openpty()
    terminal = terminal_at(cluster, tmp_path, TERM="xterm", COLUMNS="160")
    options = ("--max-runs", "1", "--eval", "exact", "--eval", "own:raises", *candidate())
    (tmp_path / "own.py").write_text("def raises(answer):\n    raise ValueError(answer.text)\n")
    async with terminal.following(*options, stdout=terminal_side) as process:
        os.close(terminal_side)
        await production(cluster, "r0")
        said = await ended(process)
    shown = os.read(master, 65_536).decode()
    os.close(master)
    assert said.code == 0, said.err
    assert "\t" not in shown
    assert re.search(r"exact +100\.0% \[.*\] +100\.0% \[.*\] +0\.0% \[.*\] +0 +0 +1 ", shown), shown
    assert re.search(r"raises .* 0 \(−1\)", shown), "an evaluator that raises costs its own outcomes alone"


async def test_a_shadow_does_not_join_the_workers_group(cluster: Cluster, tmp_path: Path) -> None:
    said = await terminal_at(cluster, tmp_path).type("shadow", "out", "--group", cluster.group_id)
    assert said.code == 2
    assert "is the workers' own" in said.err
    assert not (tmp_path / "out").exists()


async def test_a_rule_that_cannot_be_read_leaves_no_directory_that_knows_its_terms(
    cluster: Cluster, tmp_path: Path
) -> None:
    terminal = terminal_at(cluster, tmp_path)
    for rule in ("errors > 5", "pass_rate(exat) < 1"):
        said = await terminal.type("shadow", "out", "--fail-if", rule)
        assert (said.code, said.err.count("\n")) == (2, 1), said
        assert not (tmp_path / "out").exists()


async def test_a_broker_that_is_away_leaves_no_shadow(cluster: Cluster, tmp_path: Path) -> None:
    terminal = terminal_at(cluster, tmp_path, KAFKA_BOOTSTRAP_SERVERS="127.0.0.1:1")
    said = await terminal.type("shadow", "out", *candidate())
    assert (said.code, "127.0.0.1" in said.err) == (3, True), said.err
    assert not (tmp_path / "out").exists()


async def test_a_table_is_not_said_again_when_nothing_has_come_since(cluster: Cluster, tmp_path: Path) -> None:
    # With `--every 0s` the table follows the round at once, and the bound ends the shadow right behind it.
    async with terminal_at(cluster, tmp_path).following("--max-runs", "1", "--every", "0s", *candidate()) as process:
        await production(cluster, "r0")
        said = await ended(process)
    assert (said.code, said.out.count("evaluator\t")) == (0, 1), said


async def test_a_sample_that_holds_no_session_could_not_be_judged(cluster: Cluster, tmp_path: Path) -> None:
    terminal = terminal_at(cluster, tmp_path)
    async with terminal.following("--sample", "0", *candidate()) as process:
        await production(cluster, "r0")
        results = await read_topic(cluster.bootstrap_servers, cluster.topics.assistant_messages)
        await cluster.until_group_reached(terminal.group, cluster.topics.assistant_messages, results[-1].offset + 1)
        process.send_signal(signal.SIGTERM)
        said = await ended(process)
    assert (said.code, said.out) == (2, "")
    assert "nothing was compared" in said.err
    assert "not taken: 1 outside the sample" in said.err


async def test_each_outcome_goes_to_its_topic_once_and_is_a_span_linked_to_the_run_it_is_of(
    cluster: Cluster, receiver: OtlpReceiver, tmp_path: Path
) -> None:
    terminal = terminal_at(cluster, tmp_path, OTEL_EXPORTER_OTLP_ENDPOINT=receiver.endpoint)
    options = ("--publish", "--eval", "exact", "--json", *candidate(text="another answer"))
    async with terminal.following("--max-runs", "2", *options) as process:
        await production(cluster, "r0", "r1")
        first = await ended(process)
    async with terminal.following("--max-runs", "3", *options) as process:
        await production(cluster, "r2")
        second = await ended(process)
    assert (first.code, second.code) == (0, 0), first.err + second.err
    last = json.loads(second.out.splitlines()[-1])
    assert (last["runs"], last["verdict"]) == (3, "passed")
    exact = next(one for one in last["evaluators"] if one["evaluator"] == "exact")
    assert (exact["cases"], exact["baseline"], exact["candidate"]) == (3, 1.0, 0.0)
    assert sorted(exact["worse"]) == ["r0", "r1", "r2"]
    read = await evaluations(cluster)
    found = sorted((one.run_id, one.side, one.score_label) for one in read if one.name == "exact")
    assert found == [
        (run_id, side, label)
        for run_id in ("r0", "r1", "r2")
        for side, label in (("baseline", "pass"), ("candidate", "fail"))
    ]
    judged = next(one for one in read if one.run_id == "r2" and one.side == "candidate")
    assert judged.replay_run_id == f"{terminal.prefix}r2"
    produced = {run_id: (await cluster.tail.result(run_id)).trace_id for run_id in ("r0", "r1", "r2")}
    spans = [span for span in receiver.spans if span.name == "evaluate exact"]
    assert len(spans) == len(found)
    linked = {link.trace_id for span in spans for link in span.links}
    assert set(produced.values()) <= linked
    assert {one.recorded_trace_id for one in read} == set(produced.values())


async def test_a_shadow_that_does_not_keep_up_passes_over_what_is_too_old_and_says_so(
    cluster: Cluster, tmp_path: Path
) -> None:
    terminal = terminal_at(cluster, tmp_path)
    async with terminal.following(*candidate()) as process:
        process.send_signal(signal.SIGINT)
        assert (await ended(process)).code == 2
    await production(cluster, "r0", "r1", "r2", "r3")
    results = await read_topic(cluster.bootstrap_servers, cluster.topics.assistant_messages)
    await eventually(lambda: time.time() * 1000 > results[-1].timestamp_ms + 2_000, "all four are two seconds old")
    async with terminal.following("--max-lag", "2s", "--max-runs", "1", "--json", *candidate()) as process:
        # On a machine that is busy a new result can be too old as well.
        while terminal.recorded() == 0:
            await production(cluster, f"new{len(cluster.tail.results)}")
        said = await ended(process)
    assert said.code == 0, said.err
    assert "it does not keep up: results older than --max-lag are passed over" in said.err
    assert "it keeps up again: " in said.err
    assert json.loads(said.out)["not_taken"]["too_old"] >= len(results)
    (played,) = terminal.shadowed()
    assert played.run_id.startswith("new")


async def test_what_retention_took_before_it_came_by_is_said_and_the_rest_is_played(
    cluster: Cluster, tmp_path: Path
) -> None:
    terminal = terminal_at(cluster, tmp_path)
    async with terminal.following(*candidate()) as process:
        process.send_signal(signal.SIGINT)
        await ended(process)
    session = [asking(f"r{number}").model_copy(update={"session_id": "s"}) for number in range(4)]
    await production(cluster, *session)
    results = await read_topic(cluster.bootstrap_servers, cluster.topics.assistant_messages)
    # The first result is gone, and so are the requests of the second and of the third.
    await cluster.expire(cluster.topics.assistant_messages, results[1].offset)
    await cluster.expire(cluster.topics.invoke_requests, 3)
    async with terminal.following("--json", "--max-runs", "1", *candidate()) as process:
        said = await ended(process)
    assert said.code == 0, said.err
    assert f"up to {results[1].offset} results expired before they were read: retention overtook it" in said.err
    told = json.loads(said.out)
    assert told["not_taken"]["expired_offsets"] == results[1].offset
    assert told["not_taken"]["without_request"] == 2
    assert [run.run_id for run in terminal.shadowed()] == ["r3"]
