"""`agentstream init`: what it writes is loaded by our own loader, and an agent runs with it."""

import json
import signal
from pathlib import Path

import pytest
import yaml

from agentstream.consumers.agent_files import read_agent_files
from agentstream.infra.broker.port import KAFKA_VERSION
from agentstream.infra.settings_file import unknown_variables
from tests.architecture.test_files import forbidden
from tests.integration.test_cli import Terminal, until_said
from tests.support.waiting import patience

FILES = ("AGENTS.md", "agent.json", "compose.yaml")


@pytest.fixture
def terminal(tmp_path: Path) -> Terminal:
    return Terminal(home=tmp_path)


async def test_it_writes_three_files_and_says_what_to_do_with_them(terminal: Terminal) -> None:
    done = await terminal.type("init", "my agent")
    assert (done.code, done.err) == (0, "")
    assert sorted(each.name for each in (terminal.home / "my agent").iterdir()) == sorted(FILES)
    assert "  AGENTSTREAM_AGENT_DIR='my agent' agentstream dev" in done.out.splitlines()
    found = read_agent_files(terminal.home / "my agent")
    assert found.findings == ()
    assert (found.name, found.parameters.tools) == ("my agent", ())
    assert found.parameters.limits is not None
    assert found.parameters.limits.max_turns == 20
    assert "Instructions" in (found.agents_md or "")
    # The comment names every field that a file may have, so that nobody has to look for them.
    comment = " ".join(json.loads((terminal.home / "my agent" / "agent.json").read_text())["$comment"])
    for name in type(found.parameters).model_fields:
        assert name == "agents_md" or name in comment, name


async def test_it_writes_over_nothing_unless_it_is_told_to(terminal: Terminal) -> None:
    (terminal.home / "AGENTS.md").write_text("Mine.")
    refused = await terminal.type("init")
    assert (refused.code, refused.out, refused.err.count("\n")) == (2, "", 1)
    assert "AGENTS.md: there already; --force" in refused.err
    assert [each.name for each in terminal.home.iterdir()] == ["AGENTS.md"]
    assert (terminal.home / "AGENTS.md").read_text() == "Mine."
    assert (await terminal.type("init", ".", "--force")).code == 0
    assert (terminal.home / "AGENTS.md").read_text() != "Mine."
    in_the_way = await terminal.type("init", "AGENTS.md/agent")
    assert (in_the_way.code, in_the_way.out, in_the_way.err.count("\n")) == (2, "", 1)


async def test_the_compose_file_starts_a_kafka_of_our_version_and_a_worker_with_settings_that_exist(
    terminal: Terminal,
) -> None:
    await terminal.type("init")
    text = (terminal.home / "compose.yaml").read_text()
    assert list(forbidden(text)) == []
    services = yaml.safe_load(text)["services"]
    assert services["kafka"]["image"] == f"apache/kafka:{KAFKA_VERSION}"
    listeners = services["kafka"]["environment"]["KAFKA_ADVERTISED_LISTENERS"]
    worker = services["worker"]["environment"]
    assert f"INTERNAL://{worker['KAFKA_BOOTSTRAP_SERVERS']}" in listeners
    assert services["topics"]["environment"]["KAFKA_BOOTSTRAP_SERVERS"] == worker["KAFKA_BOOTSTRAP_SERVERS"]
    assert unknown_variables(worker) == ()
    assert worker["AGENTSTREAM_AGENT_DIR"] == services["worker"]["volumes"][0].split(":")[1]
    assert services["worker"]["command"] == "agentstream worker"


async def test_an_agent_runs_with_what_was_written_offline_and_with_pi(
    terminal: Terminal, kafka: str, topics: str
) -> None:
    await terminal.type("init", "agent")
    terminal.variables = {
        "KAFKA_BOOTSTRAP_SERVERS": kafka,
        "AGENTSTREAM_TOPIC_PREFIX": topics,
        "AGENTSTREAM_GROUP_ID": f"{topics}workers",
        "AGENTSTREAM_AGENT_DIR": "agent",
    }
    dev = await terminal.start("dev", "--partitions", "1")
    try:
        await until_said(dev.stdout, "Ctrl-C stops it.")
        answered = await terminal.type("invoke", "Hello", "--json")
        assert answered.code == 0, answered.err
        result = json.loads(answered.out.splitlines()[-1])["result"]
        assert result["status"] == "completed"
        assert result["harness"]["kind"] == "pi"
        assert result["parameters"]["agents_md"].startswith("# Instructions")
        assert result["parameters"]["limits"]["max_turns"] == 20
        dev.send_signal(signal.SIGINT)
        async with patience():
            _, said = await dev.communicate()
        assert dev.returncode == 0
        assert b"agent.json" not in said  # a finding would name it
    finally:
        if dev.returncode is None:
            dev.kill()
            await dev.communicate()
