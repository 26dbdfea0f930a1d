"""`python -m agentstream.infra.offline_model --port 0`: prints the base URL, serves until it is stopped."""

import argparse
import asyncio
import contextlib
import signal
import sys

from agentstream.infra.offline_model.server import OfflineModel


async def _serve(port: int) -> None:
    stop = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    async with OfflineModel(port=port) as model:
        sys.stdout.write(f"{model.base_url}\n")
        sys.stdout.flush()
        await stop.wait()


def main() -> None:
    """Parse the arguments and serve."""
    parser = argparse.ArgumentParser(prog="offline_model", description=(__doc__ or "").partition(":")[0])
    parser.add_argument("--port", type=int, default=0, help="0: any free one")
    arguments = parser.parse_args()
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(_serve(arguments.port))


main()
