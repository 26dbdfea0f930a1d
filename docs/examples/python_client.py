"""Ask an agent from Python with agentstream's own client: a result, words as they come, a conversation, a cancellation.

    python docs/examples/python_client.py            # Kafka at KAFKA_BOOTSTRAP_SERVERS, or localhost:9092

It needs a worker, such as `agentstream dev` starts.
"""

import asyncio
import logging
import os
import sys

from agentstream import AgentClient
from agentstream.consumers.client import ClientError, Run, Voided
from agentstream.schemas.events import PartDelta

TIMEOUT = 60.0
"""Seconds from the question to its result. The run itself goes on if its caller stops waiting."""


async def only_the_result(client: AgentClient) -> None:
    """One question, one answer. A run that failed is a result as well: look at `status` and `error`."""
    result = await client.invoke("Name a river.", timeout=TIMEOUT)
    said = result.text if result.status == "completed" else result.error
    print(f"invoke: {result.status}: {said}")


async def words_as_they_come(client: AgentClient) -> None:
    """The same, watched: events while the agent works, then the result."""
    print("stream: ", end="")
    async with client.stream("Name a lake.", timeout=TIMEOUT) as run:
        deltas = await print_words(run)
        result = await run.result()
    print(f"\nstream: {result.status} after {deltas} deltas, tokens: {[usage.output_tokens for usage in result.usage]}")


async def print_words(run: Run) -> int:
    """Print an answer while it is written; returns in how many pieces it came."""
    deltas = 0
    async for event in run:
        match event:
            case PartDelta(part_type="text"):
                print(event.delta, end="", flush=True)
                deltas += 1
            case Voided():
                # The attempt failed or its worker died. Another one begins, and what was shown does not count.
                print("\n(once more) ", end="")
    return deltas


async def a_conversation(client: AgentClient) -> None:
    """A session on Kafka orders its runs and remembers nothing: this object keeps the history and sends it along."""
    async with client.session() as session:
        await session.send("My name is Ada.", timeout=TIMEOUT)
        run = await session.send("What is my name?", timeout=TIMEOUT)  # waits for the turn before
        print(f"session: {(await run.result()).text}")
        for message in session.history:
            print(f"session: {message.role} said: {message.text}")


async def stopped_in_the_middle(client: AgentClient) -> None:
    """Cancel a run that is under way. It ends as `cancelled`, and that is its one result.

    Leaving the block before the result came would have cancelled it as well; so would anybody's
    `client.cancel(run_id)` or `agentstream cancel RUN_ID`.
    """
    question = "Write the numbers from one to one hundred in words, all of them in one line, and do not stop early."
    async with client.stream(question, timeout=TIMEOUT) as run:
        async for event in run:
            if isinstance(event, PartDelta):
                await run.cancel("the first word was enough")
                break
        result = await run.result()
    print(f"cancel: {result.status}")


async def main() -> None:
    """Everything above, over one connection: however many callers wait, a client has one consumer per topic."""
    servers = os.environ.get("KAFKA_BOOTSTRAP_SERVERS", "localhost:9092")
    prefix = os.environ.get("AGENTSTREAM_TOPIC_PREFIX", "agent.")
    async with AgentClient(servers, topic_prefix=prefix) as client:
        await only_the_result(client)
        await words_as_they_come(client)
        await a_conversation(client)
        await stopped_in_the_middle(client)


if __name__ == "__main__":
    # What could not be done is raised, as a ClientError: the Kafka library's own remarks would only repeat it.
    logging.getLogger("aiokafka").setLevel(logging.CRITICAL)
    try:
        asyncio.run(main())
    except ClientError as error:
        sys.exit(f"error: {error}")
