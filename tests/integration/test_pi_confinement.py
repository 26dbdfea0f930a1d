"""Nothing on disk reaches a run unasked, and the file tools of a run reach nothing outside its directory."""

import json
import os
import subprocess
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from agentstream.consumers.harness.launcher import Command, LocalLauncher, LocalProcess, bubblewrap_prefix
from agentstream.consumers.harness.pi import PiHarness
from agentstream.infra.offline_model import OfflineModel
from agentstream.schemas.events import ToolEnded
from tests.integration.pi_fixtures import ALL_TOOLS, KEY, credentials, perform, pi_harness, request, settings

PLANTED = "PLANTED-WORDS"
OUTSIDE = "outside-the-directory"


class PlantedLauncher(LocalLauncher):
    """Plants what Pi would read if it could, wherever it might look: HOME, its directory, and their parents."""

    async def start(self, command: Command) -> LocalProcess:
        home = Path(command.environment["HOME"])
        for directory in {home, command.directory, home.parent, home.parent.parent}:
            plant(directory)
        return await super().start(command)


def plant(directory: Path) -> None:
    for name in ("AGENTS.md", "CLAUDE.md", ".pi/SYSTEM.md", ".pi/APPEND_SYSTEM.md", ".pi/agent/AGENTS.md"):
        path = directory / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(PLANTED)
    planted = {"defaultModel": PLANTED, "shellCommandPrefix": f"echo {PLANTED};", "defaultTools": ["bash"]}
    models = {"providers": {"offline": {"baseUrl": "http://127.0.0.1:9", "apiKey": PLANTED, "models": []}}}
    for base in (".pi", ".pi/agent"):
        (directory / base / "settings.json").write_text(json.dumps(planted))
        (directory / base / "auth.json").write_text(json.dumps({"offline": {"type": "api_key", "key": PLANTED}}))
        (directory / base / "models.json").write_text(json.dumps(models))
        for kind in ("extensions", "skills/evil", "prompts"):
            (directory / base / kind).mkdir(parents=True, exist_ok=True)
        (directory / base / "extensions" / "evil.js").write_text("export default (pi) => { process.exit(9); }")
        (directory / base / "skills" / "evil" / "SKILL.md").write_text(
            f"---\nname: evil\ndescription: {PLANTED}\n---\n"
        )
    (directory / ".bashrc").write_text(f"echo {PLANTED}\n")
    (directory / ".bash_profile").write_text(f"echo {PLANTED}\n")


async def test_planted_files_change_nothing(tmp_path: Path) -> None:
    async with OfflineModel() as model, pi_harness(settings(tmp_path), launcher=PlantedLauncher()) as harness:
        script = '[[tool:bash {"command": "echo hi; ls -A"}]][[say: ok]]'
        wanted = request(script, credentials=credentials(model), tools=("bash",), agents_md="Mine.")
        outcome = await perform(harness, wanted)
        assert outcome.text == "ok"
        assert [e.content for e in outcome.events if isinstance(e, ToolEnded)] == ["hi\n"]
        for call in model.calls:
            assert call.api_key == KEY
            assert PLANTED not in json.dumps(call.body)
            assert "Mine." in call.conversation.system


async def test_our_own_environment_reaches_neither_the_shell_nor_the_model(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", PLANTED)
    monkeypatch.setenv("PI_CODING_AGENT_DIR", str(tmp_path))
    monkeypatch.setenv("NODE_OPTIONS", "--require /nowhere.js")
    own = settings(tmp_path, environment={"HTTPS_PROXY": PLANTED})
    async with OfflineModel() as model, pi_harness(own) as harness:
        script = '[[tool:bash {"command": "env"}]][[say: ok]]'
        outcome = await perform(harness, request(script, credentials=credentials(model), tools=("bash",)))
        content = str(next(e.content for e in outcome.events if isinstance(e, ToolEnded)))
        names = {line.partition("=")[0] for line in content.splitlines()} - {"PWD", "SHLVL", "_", "OLDPWD"}
        assert names == {"PATH", "HOME", "LANG", "TMPDIR", "AGENTSTREAM_RUN"}
        assert PLANTED not in content
        without = request("hi", credentials=None, model="openai/gpt-5")
        assert (await perform(harness, without)).failed.code == "provider_auth"


pytest_shared = pytest_asyncio.fixture(scope="module", loop_scope="module")


@pytest_shared
async def model() -> AsyncIterator[OfflineModel]:
    async with OfflineModel() as opened:
        yield opened


@pytest_shared
async def harness(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[PiHarness]:
    directory = tmp_path_factory.mktemp("confined")
    (directory / "secret.txt").write_text(OUTSIDE)
    async with pi_harness(settings(directory)) as opened:
        yield opened


@pytest.mark.asyncio(loop_scope="module")
@pytest.mark.parametrize(
    "call",
    [
        'read {"path": "/etc/hostname"}',
        'read {"path": "../../secret.txt"}',
        'read {"path": "a/../../../secret.txt"}',
        'read {"path": "out/secret.txt"}',
        'read {"path": "file"}',
        'read {"path": "loop"}',
        'read {"path": "~/../../secret.txt"}',
        'read {"path": "file:///etc/hostname"}',
        'read {"path": "@/etc/hostname"}',
        'read {"path": "/proc/self/environ"}',
        'read {"path": "pipe"}',
        'write {"path": "../../written.txt", "content": "x"}',
        'write {"path": "out/written.txt", "content": "x"}',
        'write {"path": "out/new/deep/written.txt", "content": "x"}',
        'write {"path": "dangling", "content": "x"}',
        'write {"path": "pipe", "content": "x"}',
        'edit {"path": "file", "edits": [{"oldText": "outside", "newText": "x"}]}',
        'edit {"path": "../../secret.txt", "edits": [{"oldText": "outside", "newText": "x"}]}',
        'ls {"path": "/"}',
        'ls {"path": "out"}',
        'grep {"pattern": "outside", "path": "out"}',
        'grep {"pattern": "outside", "path": "../.."}',
        'grep {"pattern": "outside", "path": "file"}',
        'grep {"pattern": "x", "glob": "*", "path": "/etc/hostname"}',
        'find {"pattern": "*.txt", "path": "../.."}',
        'find {"pattern": "../../*.txt"}',
        'find {"pattern": "/etc/host*"}',
        'find {"pattern": "*.txt", "path": "out"}',
    ],
)
async def test_a_file_tool_does_not_leave_the_directory(harness: PiHarness, model: OfflineModel, call: str) -> None:
    links = "ln -s ../.. out; ln -s ../../secret.txt file; ln -s loop loop; ln -s ../../fresh.txt dangling; mkfifo pipe"
    script = f'[[tool:bash {{"command": "{links}; ls | wc -l"}}]][[tool:{call}]][[say: ok]]'
    outcome = await perform(harness, request(script, credentials=credentials(model), tools=ALL_TOOLS))
    assert outcome.text == "ok"
    shell, answer = (event for event in outcome.events if isinstance(event, ToolEnded))
    assert (shell.is_error, str(shell.content).strip()) == (False, "5")
    assert answer.is_error, answer.content
    assert OUTSIDE not in str(answer.content)
    root = Path(str(harness.root)).parent
    assert (root / "secret.txt").read_text() == OUTSIDE
    assert not [name for name in ("written.txt", "fresh.txt", "new") if (root / name).exists()]


@pytest.mark.asyncio(loop_scope="module")
async def test_a_search_through_the_directory_follows_no_link_out_of_it(
    harness: PiHarness, model: OfflineModel
) -> None:
    script = (
        '[[tool:bash {"command": "ln -s ../.. out; echo outside here > in.txt"}]]'
        '[[tool:grep {"pattern": "outside"}]][[tool:find {"pattern": "*.txt"}]][[say: ok]]'
    )
    outcome = await perform(harness, request(script, credentials=credentials(model), tools=ALL_TOOLS))
    _, grep, find = (event for event in outcome.events if isinstance(event, ToolEnded))
    assert (grep.content, find.content) == ("in.txt:1:outside here", "in.txt")


async def test_a_prefix_is_put_before_every_shell(tmp_path: Path) -> None:
    own = settings(tmp_path, shell_prefix=("env", "IT'S=${HOME} {workdir}"))
    async with OfflineModel() as model, pi_harness(own) as harness:
        command = "echo \\\"$(env | grep IT)\\\" 'and this'"
        script = f'[[tool:bash {{"command": "{command}"}}]][[say: ok]]'
        outcome = await perform(harness, request(script, credentials=credentials(model), tools=("bash",)))
        content = str(next(e.content for e in outcome.events if isinstance(e, ToolEnded)))
        assert content.startswith(f"IT'S=${{HOME}} {tmp_path}")
        assert content.endswith(" and this\n")


def bubblewrap() -> Path | None:
    for directory in os.defpath.split(os.pathsep):
        program = Path(directory) / "bwrap"
        if program.exists() and subprocess.run([program, "--ro-bind", "/", "/", "true"], check=False).returncode == 0:
            return program
    return None


async def test_in_bubblewrap_the_shell_writes_nowhere_else(tmp_path: Path) -> None:
    program = bubblewrap()
    if program is None:
        pytest.skip("bubblewrap is not here, or may not make namespaces")
    prefix = bubblewrap_prefix(Path("{workdir}"), program=program, as_root=os.geteuid() == 0)
    async with OfflineModel() as model, pi_harness(settings(tmp_path, shell_prefix=prefix)) as harness:
        script = f'[[tool:bash {{"command": "touch {tmp_path}/out || echo refused; touch in && ls"}}]][[say: ok]]'
        outcome = await perform(harness, request(script, credentials=credentials(model), tools=("bash",)))
        assert "refused" in str(next(e.content for e in outcome.events if isinstance(e, ToolEnded)))
