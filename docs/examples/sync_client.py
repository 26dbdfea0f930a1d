"""Ask an agent from a script or a notebook, with nothing to await: a result, words as they come, a conversation.

    python docs/examples/sync_client.py            # Kafka at KAFKA_BOOTSTRAP_SERVERS, or localhost:9092

It needs a worker, such as `agentstream dev` starts.
"""

import logging
import os
import sys

from agentstream import SyncAgentClient
from agentstream.consumers.client import ClientError, Voided
from agentstream.schemas.events import PartDelta

TIMEOUT = 60.0
"""Seconds from the question to its result. The run itself goes on if its caller stops waiting."""


def main(client: SyncAgentClient) -> None:
    """Everything over one connection. Many threads may share a client."""
    result = client.invoke("Name a river.", timeout=TIMEOUT)
    # A run that failed is a result as well.
    print(f"invoke: {result.status}: {result.text if result.status == 'completed' else result.error}")

    print("stream: ", end="")
    with client.stream("Name a lake.", timeout=TIMEOUT) as run:  # Ctrl-C leaves the block, and that cancels the run
        for event in run:
            match event:
                case PartDelta(part_type="text"):
                    print(event.delta, end="", flush=True)
                case Voided():
                    # The attempt failed or its worker died. Another one begins, and what was shown does not count.
                    print("\n(once more) ", end="")
        result = run.result()
    print(f"\nstream: {result.status}, tokens: {[usage.output_tokens for usage in result.usage]}")

    with client.session() as session:  # keeps the history and sends it along: Kafka remembers no conversation
        session.send("My name is Ada.", timeout=TIMEOUT)
        run = session.send("What is my name?", timeout=TIMEOUT)  # waits for the turn before
        print(f"session: {run.result().text}")
        print(f"session: {len(session.history)} messages")


if __name__ == "__main__":
    # What could not be done is raised, as a ClientError: the Kafka library's own remarks would only repeat it.
    logging.getLogger("aiokafka").setLevel(logging.CRITICAL)
    servers = os.environ.get("KAFKA_BOOTSTRAP_SERVERS", "localhost:9092")
    try:
        with SyncAgentClient(servers, topic_prefix=os.environ.get("AGENTSTREAM_TOPIC_PREFIX", "agent.")) as opened:
            main(opened)
    except ClientError as error:
        sys.exit(f"error: {error}")
