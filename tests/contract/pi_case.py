"""The `pi` and `pi-http` harnesses: the real Pi in its sidecar, against the offline model."""

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path

from pydantic import JsonValue

from agentstream.consumers.harness.pi import PiHarness
from agentstream.consumers.harness.pi_http import PiHttpHarness
from agentstream.consumers.harness.pi_http_stream import HttpPlace
from agentstream.consumers.harness.port import Harness, HarnessRequest
from agentstream.consumers.harness.sidecar_server import Serving, SidecarServer
from agentstream.infra.offline_model import OfflineModel
from tests.contract.cases import LARGE_BYTES, TEXT, Scene, Stage, request_for
from tests.integration.pi_fixtures import credentials, settings

_TOKEN = "token-of-the-contract"
_ANSWER = f"[[say: {TEXT}]]"
_SCRIPTS = {
    Scene.ANSWER: f"[[usage: prompt=5 completion=3]]{_ANSWER}",
    Scene.TOOLS: '[[tool:bash {"command": "echo a > f"}]][[tool:bash {"command": "cat f"}]]' + _ANSWER,
    Scene.TOOL_FAILS: '[[tool:bash {"command": "exit 3"}]]' + _ANSWER,
    Scene.LARGE: f"[[big: {LARGE_BYTES}]]",
    Scene.PROVIDER_DOWN: "[[fail:500]]",
    Scene.REFUSED: "[[fail:401]]",
    Scene.LOOP: '[[loop:bash {"command": "true"}]]',
    Scene.HANG_BEFORE_ANSWER: "[[fail:hang]]",
    Scene.HANG_MID_TEXT: f"[[fail:stall]][[say: {TEXT} {TEXT}]]",
    Scene.HANG_IN_TOOL: '[[tool:bash {"command": "setsid sleep 600 & sleep 600"}]]' + _ANSWER,
}


class PiCase:
    """The `pi` harness."""

    kind = "pi"

    @asynccontextmanager
    async def open(self, temporary: Path) -> AsyncIterator[Stage]:
        async with OfflineModel() as model, PiHarness(settings(temporary)) as harness:
            yield _stage(harness, model)


class PiHttpCase:
    """The `pi-http` harness, before a sidecar that wants a token."""

    kind = "pi-http"

    @asynccontextmanager
    async def open(self, temporary: Path) -> AsyncIterator[Stage]:
        serving = Serving(host="127.0.0.1", port=0, token=_TOKEN)
        async with OfflineModel() as model, SidecarServer(settings(temporary), serving) as server:
            place = HttpPlace(url=f"http://127.0.0.1:{server.port}", token=_TOKEN)
            async with PiHttpHarness(place) as harness:
                yield _stage(harness, model)


def _stage(harness: Harness, model: OfflineModel) -> Stage:
    def request(scene: Scene) -> HarnessRequest:
        return request_for(
            harness.kind,
            _SCRIPTS[scene],
            model="offline/demo",
            tools=("bash",),
            credentials=credentials(model),
            max_turns=2 if scene is Scene.LOOP else 10,
        )

    bad: tuple[Mapping[str, JsonValue], ...] = ({"nonsense": 1},)
    return Stage(harness=harness, request=request, bad_options=bad)
