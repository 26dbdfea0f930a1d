"""`python -m agentstream.infra.cli` is the same as `agentstream`."""

from agentstream.infra.cli import main

main()
