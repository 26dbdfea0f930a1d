"""The command line: `agentstream`. Commands import what they need when they run, so that `--help` is quick."""

import sys

from agentstream.infra.cli.app import app
from agentstream.infra.cli.exits import OK, exit_code, open_missing_streams


def main() -> None:
    """Run the command of `sys.argv` and exit with its code. Errors are one line; `--debug` shows where they arose."""
    open_missing_streams()
    debug = "--debug" in sys.argv
    try:
        code = app(standalone_mode=False, prog_name="agentstream")
        sys.stdout.flush()
    except BaseException as error:  # noqa: BLE001  # the one place where every error becomes a line and a code
        sys.exit(exit_code(error, debug=debug))
    sys.exit(code if isinstance(code, int) else OK)
