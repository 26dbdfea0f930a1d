"""What the tests of commands share: a terminal whose topics are made."""

from pathlib import Path

from tests.integration.test_cli import Terminal


async def scripted_terminal(kafka: str, topics: str, home: Path) -> Terminal:
    """A terminal with the scripted harness, quick timeouts, and topics of two partitions."""
    variables = {
        "KAFKA_BOOTSTRAP_SERVERS": kafka,
        "AGENTSTREAM_TOPIC_PREFIX": topics,
        "AGENTSTREAM_GROUP_ID": f"{topics}workers",
        "AGENTSTREAM_HARNESSES": "scripted",
        "AGENTSTREAM_SESSION_TIMEOUT_MS": "6000",
        "AGENTSTREAM_HEARTBEAT_INTERVAL_MS": "500",
    }
    one = Terminal(home=home, variables=variables)
    assert (await one.type("topics", "apply", "--partitions", "2")).code == 0
    return one
