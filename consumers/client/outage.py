"""What a program is told of brokers that do not answer: a line when that begins, and one when it ends.

aiokafka tells of each attempt to connect, a hundred lines a second: 3,758 in the 37 s after a broker was killed.
"""

import asyncio
import logging
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from contextvars import ContextVar
from typing import Final

from aiokafka.errors import KafkaError

from agentstream.consumers.client.errors import in_words
from agentstream.consumers.kafka import tail_consumer
from agentstream.consumers.readers.tail import Tail
from agentstream.producers.connection import KafkaConnection
from agentstream.schemas.topics import Topics

log = logging.getLogger(__name__)

Hears = Callable[[], AbstractContextManager[None]]
LOOK_SECONDS: Final = 1.0
_ANSWER_SECONDS: Final = 5.0
_LOGGERS: Final = ("aiokafka", "aiokafka.consumer.fetcher", "aiokafka.producer.sender")
_BEGINNINGS: Final = (
    "Unable connect to",
    "Unable to request metadata",
    "Unable to update metadata",
    "Failed fetch messages",
    "Failed fetch offsets",
    "Cannot send",
    "Could not send",
    "Got error produce response",
)
_concerned: ContextVar["Outage | None"] = ContextVar("agentstream_outage", default=None)
"""Whose connections this task works for. aiokafka's tasks have what was set where they were made."""


class Outage:
    """The outages that one client sees. `open`, then `hears` around whatever makes connections; `close` ends it.

    Nothing is held back where aiokafka's own log is at level DEBUG, nor before `open`: what cannot be opened is raised.
    """

    def __init__(self, connection: KafkaConnection, topics: Topics) -> None:
        self._connection = connection
        self._topics = topics
        self._is_open = False
        self._began: float | None = None
        self._looking: asyncio.Task[None] | None = None

    def open(self) -> None:
        """From now on tell of outages."""
        self._is_open = True
        for name in _LOGGERS:
            logging.getLogger(name).addFilter(_is_worth_a_line)  # adding it twice adds it once

    async def close(self) -> None:
        """Tell no more."""
        self._is_open = False
        task, self._looking = self._looking, None
        if task is not None:
            task.cancel()
            await asyncio.wait({task})

    @contextmanager
    def hears(self) -> Iterator[None]:
        """Inside it, and in all tasks that are made inside it, lines of aiokafka are of this client's connections."""
        token = _concerned.set(self)
        try:
            yield
        finally:
            _concerned.reset(token)

    def takes(self, record: logging.LogRecord) -> bool:
        """Whether this line is one of an outage, and told of by a line of our own."""
        if not self._is_open or record.levelno < logging.WARNING or not record.msg.startswith(_BEGINNINGS):
            return False
        if self._began is None:
            self._began = time.monotonic()
            log.warning("Kafka does not answer; going on when it does (%s)", " ".join(record.getMessage().split()))
            self._looking = asyncio.create_task(self._look(), name="agent-client looks for Kafka")
        return True

    async def _look(self) -> None:
        while True:
            await asyncio.sleep(LOOK_SECONDS)
            if await self._answers():
                break
        began, self._began = self._began, None
        log.warning("Kafka answers again, after %.0f s", time.monotonic() - (began or 0.0))

    async def _answers(self) -> bool:
        tail = Tail(lambda: tail_consumer(self._connection, read_committed=True), self._topics.invoke_requests)
        try:
            async with asyncio.timeout(_ANSWER_SECONDS):
                await tail.partitions()
        except (KafkaError, OSError, TimeoutError) as error:
            log.debug("still away: %s", in_words(error))
            return False
        finally:
            await tail.close()
        return True


def _is_worth_a_line(record: logging.LogRecord) -> bool:
    concerned = _concerned.get()
    if concerned is None or logging.getLogger(_LOGGERS[0]).isEnabledFor(logging.DEBUG):
        return True
    return not concerned.takes(record)
