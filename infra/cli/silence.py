"""What `invoke` says when it hears nothing: whether Kafka is gone, or whoever ran the run.

A caller waited 600 s without a word for a worker that had been killed in its first second.
"""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from aiokafka.errors import KafkaError

from agentstream.consumers.client import Voided
from agentstream.infra.topic_admin import TopicsError, topic_admin
from agentstream.producers.connection import KafkaConnection
from agentstream.schemas.events import ReadEvent, RunQueued, RunRetrying

LOOK_SECONDS = 10.0
"""Nothing at all for so long is looked into."""
ALIVE_MARGIN_SECONDS = 15.0
"""A running attempt says `run.alive` after 10 s of silence: 5 s more, and it is not running any more."""
_PROBE_SECONDS = 5.0

NO_BROKER = "Kafka does not answer any more; still waiting (Ctrl-C stops)"
BROKER_BACK = "Kafka answers again"
NOT_TAKEN = "no worker has taken it yet; is one running? `agentstream doctor` tells"
NOBODY = "its worker has fallen silent; another takes the run over, if one is running: `agentstream doctor` tells"


class Silence:
    """Knows how long nothing was heard, and what that means. Bookkeeping only: times are the caller's, in seconds."""

    def __init__(self, now: float, *, alive_is_sent: bool = True) -> None:
        """`alive_is_sent`: whether a running attempt breaks its silence; it does not with `stream=none`."""
        self._alive_is_sent = alive_is_sent
        self._quiet_since = now
        self._worker_due: float | None = now + LOOK_SECONDS
        self._heard_any = False
        self._broker_gone = False

    def heard(self, event: ReadEvent | Voided, now: float) -> None:
        """An event came."""
        self._heard_any = True
        self._quiet_since = now
        match event:
            case RunQueued():
                self._worker_due = None  # it may wait for long, and nothing is said meanwhile
            case RunRetrying():
                self._worker_due = now + event.delay_ms / 1000 + ALIVE_MARGIN_SECONDS
            case _:
                self._worker_due = now + ALIVE_MARGIN_SECONDS if self._alive_is_sent else None

    def must_look(self, now: float) -> bool:
        """Whether it is time to ask the brokers."""
        # Once it was said that they are gone, it is said that they are back, also if a run is heard before we look.
        return self._broker_gone or now - self._quiet_since >= LOOK_SECONDS

    def said(self, now: float, *, broker_answers: bool) -> str | None:
        """What is to be said, once for each thing."""
        if not broker_answers:
            was_gone, self._broker_gone = self._broker_gone, True
            return None if was_gone else NO_BROKER
        if self._broker_gone:
            self._broker_gone = False
            self._quiet_since = now  # nobody could be heard: the worker has its time again
            self._worker_due = None if self._worker_due is None else now + ALIVE_MARGIN_SECONDS
            return BROKER_BACK
        if self._worker_due is None or now < self._worker_due:
            return None
        self._worker_due = None
        return NOBODY if self._heard_any else NOT_TAKEN


class BrokerSilence(Silence):
    """The same where no run is waited for: only the brokers are missed."""

    def __init__(self, now: float) -> None:
        super().__init__(now)
        self._worker_due = None

    def spoke(self, now: float) -> None:
        """The brokers gave a record."""
        self._quiet_since = now


@asynccontextmanager
async def watching(silence: Silence, connection: KafkaConnection, say: Callable[[str], None]) -> AsyncIterator[None]:
    """Inside it a second passes between two looks, and what is to be said is said."""
    loop = asyncio.get_running_loop()

    async def watch() -> None:
        while True:
            await asyncio.sleep(1.0)
            if silence.must_look(loop.time()):
                answers = await _answers(connection)
                if silence.must_look(loop.time()) and (line := silence.said(loop.time(), broker_answers=answers)):
                    say(line)

    task = asyncio.create_task(watch(), name="silence")
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def _answers(connection: KafkaConnection) -> bool:
    try:
        async with asyncio.timeout(_PROBE_SECONDS), topic_admin(connection) as admin:
            await admin.names()
    except TopicsError:
        return True  # a refusal is an answer
    except (KafkaError, OSError, TimeoutError):
        return False
    return True
