"""What the tests of commands share: a terminal whose topics are made."""

from pathlib import Path

from tests.integration.test_cli import Terminal, scripted_worker


async def scripted_terminal(kafka: str, topics: str, home: Path) -> Terminal:
    """A terminal with the scripted harness, quick timeouts, and topics of two partitions."""
    one = Terminal(home=home, variables=scripted_worker(kafka, topics))
    assert (await one.type("topics", "apply", "--partitions", "2")).code == 0
    return one
