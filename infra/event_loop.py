"""Which event loop a worker runs on: uvloop where it is installed, which needs less processor time, or Python's own."""

import asyncio
from collections.abc import Callable, Coroutine

from agentstream.infra.settings_file import SettingsError
from agentstream.infra.settings_types import EventLoop


def run(main: Coroutine[object, object, None], wanted: EventLoop) -> None:
    """Run to the end, as `asyncio.run` does. Raises SettingsError if uvloop is wanted and cannot be imported."""
    try:
        runner = asyncio.Runner(loop_factory=_loop_factory(wanted))
    except SettingsError:
        main.close()
        raise
    with runner:
        runner.run(main)


def running_loop() -> str:
    """The package of the loop that runs: `uvloop` or `asyncio`."""
    return type(asyncio.get_running_loop()).__module__.partition(".")[0]


def _loop_factory(wanted: EventLoop) -> Callable[[], asyncio.AbstractEventLoop] | None:
    if wanted == "asyncio":
        return None
    try:
        import uvloop
    except ImportError as error:
        if wanted == "auto":
            return None
        raise SettingsError(
            f"AGENTSTREAM_EVENT_LOOP: uvloop cannot be used ({error}):"
            " `pip install 'agentstream-kafka[uvloop]'`, or say auto or asyncio"
        ) from error
    return uvloop.new_event_loop
