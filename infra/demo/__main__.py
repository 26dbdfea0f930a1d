"""`python -m agentstream.infra.demo`: exit code 0 if every scene went as it should, 1 if one did not."""

import asyncio
import sys

from agentstream.infra.cli.exits import INTERRUPTED, exit_code
from agentstream.infra.demo.play import play


def main() -> int:
    """Play the demo."""
    try:
        return asyncio.run(play())
    except asyncio.CancelledError:
        return INTERRUPTED
    except BaseException as error:  # noqa: BLE001  # every error becomes a line and a code, as in the command line
        return exit_code(error, debug="--debug" in sys.argv)


sys.exit(main())
