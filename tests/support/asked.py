"""What callers asked for, as it stands on the log."""

from agentstream.consumers.readers import Read, TopicReader
from agentstream.schemas.codec import Rejection, decode_request
from agentstream.schemas.errors import Problem
from agentstream.schemas.messages import Message
from agentstream.schemas.records import Record
from agentstream.schemas.requests import InvokeRequest
from tests.support.cluster import Cluster


def words(messages: tuple[Message, ...]) -> list[str]:
    """A conversation as a test reads it."""
    return [f"{message.role}: {message.text}" for message in messages]


async def asked_with(cluster: Cluster) -> list[list[str]]:
    """The conversation of each request."""
    reader = TopicReader(
        cluster.connection, cluster.topics.invoke_requests, _request, start="beginning", until_end=True
    )
    async with reader:
        return [
            words(read.value.messages)
            async for read in reader
            if isinstance(read, Read) and isinstance(read.value, InvokeRequest)
        ]


def _request(record: Record) -> InvokeRequest | Problem:
    found = decode_request(record)
    return found.problem if isinstance(found, Rejection) else found
