"""`python -m tests.chaos.mutants NAME`: the command line's worker, with one rule broken."""

import sys

from agentstream.infra.cli import main
from tests.chaos.mutants.rules import BREAKERS

if __name__ == "__main__":
    BREAKERS[sys.argv[1]]()
    sys.argv = ["agentstream", "worker"]
    main()
