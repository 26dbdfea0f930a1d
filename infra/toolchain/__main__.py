"""`python -m agentstream.infra.toolchain` gets what is missing; `… node ARGS` runs the sidecar's Node."""

import os
import sys
import time
from collections.abc import Sequence

from agentstream.infra.toolchain import ToolMissing, ensure_pi_sidecar, find_node, kafka_jars


def main(arguments: Sequence[str]) -> int:
    """Return 0 when the demo and the tests will find all they need, 1 after having said what is missing."""
    if arguments and arguments[0] == "node":
        node = str(find_node().node)
        os.execv(node, [node, *arguments[1:]])
    started = time.monotonic()

    def say(line: str) -> None:
        print(f"[set-up] {line}", file=sys.stderr, flush=True)

    try:
        ensure_pi_sidecar(say)
        if kafka_jars() is None:
            from agentstream.infra.broker import ensure_broker  # half a second of imports, only where it is needed

            ensure_broker(say)
    except ToolMissing as missing:
        print(f"\n{missing.what}.\n{missing.how_to_get_it}", file=sys.stderr)
        return 1
    if time.monotonic() - started > 2:
        say(f"tools are ready after {time.monotonic() - started:.0f} s")
    return 0


sys.exit(main(sys.argv[1:]))
