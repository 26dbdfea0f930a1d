"""The command line: `agentstream`. Commands import what they need when they run, so that `--help` is quick."""

import sys

from agentstream.infra.cli.exits import OK, exit_code, open_missing_streams
from agentstream.infra.cli.streams import escape_what_cannot_be_encoded, refuse_what_is_no_text


def main() -> None:
    """Run the command of `sys.argv` and exit with its code. Errors are one line; `--debug` shows where they arose."""
    open_missing_streams()
    escape_what_cannot_be_encoded()
    debug = "--debug" in sys.argv
    try:
        refuse_what_is_no_text(sys.argv[1:])
        from agentstream.infra.cli.app import app  # here: Ctrl-C meanwhile is no stack trace

        code = app(standalone_mode=False, prog_name="agentstream")
        sys.stdout.flush()
    except BaseException as error:  # noqa: BLE001  # the one place where every error becomes a line and a code
        sys.exit(exit_code(error, debug=debug))
    sys.exit(code if isinstance(code, int) else OK)
