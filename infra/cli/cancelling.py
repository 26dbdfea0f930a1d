"""`agentstream cancel`."""

import asyncio
import getpass
import socket
import sys
from dataclasses import dataclass

from aiokafka.errors import KafkaError

from agentstream.consumers.client import AgentClient
from agentstream.consumers.client.errors import in_words
from agentstream.consumers.coordinator import CoordinatorError
from agentstream.consumers.readers import Read, ResultReader
from agentstream.consumers.readers.tail import TopicMissing
from agentstream.consumers.whereabouts import Search, Whereabouts
from agentstream.infra.cli.context import Cluster, Context
from agentstream.infra.cli.exits import FAILED, OK, TIMED_OUT, UNAVAILABLE, fail
from agentstream.infra.cli.locating import check_run_id, document, sentence
from agentstream.infra.cli.screen import Screen
from agentstream.infra.rendering import problem_line, summary
from agentstream.infra.settings import Settings
from agentstream.infra.topic_admin import topic_admin
from agentstream.schemas.results import InvokeResult

LOOK_SECONDS = 15.0
"""To say where the run is that is to be cancelled: of an unknown one all that ended is looked at."""
_LAST = 100_000
_OVER = ("finished", "refused")
_NOT_THERE = "is not on the log; it will be cancelled if it comes"
_APPLY = "`agentstream topics apply` makes what is missing"


@dataclass(frozen=True, kw_only=True, slots=True)
class Wanted:
    """What stands on the command line."""

    run_id: str
    """The run."""
    reason: str | None
    """Why."""
    wait_s: float | None
    """Seconds to wait for the result; None: not at all."""
    as_json: bool
    """Whether to write JSON."""


def run_cancel(context: Context, wanted: Wanted) -> None:
    """Ask for it, and say where the run is or, if that is to be waited for, how it ended.

    Exit code 1 for one that ended, or had ended before, as anything but cancelled, and for one that is not on the log.
    """
    check_run_id(wanted.run_id)
    settings = context.settings()
    context.quiet_logs(settings)
    cluster = context.cluster(settings)

    async def cancel() -> int:
        async with topic_admin(cluster.connection) as admin:
            seen = await admin.names()  # says within 10 s that nobody answers; a producer takes 40 s, also for a topic
        async with AgentClient(connection=cluster.connection, topic_prefix=cluster.topics.prefix) as client:
            if cluster.topics.control not in seen:
                fail(f"no such topic: {cluster.topics.control}, or this user may not see it; {_APPLY}", UNAVAILABLE)
            cancelling = _Cancelling(client, cluster, settings, wanted)
            return await (cancelling.ask() if wanted.wait_s is None else cancelling.ask_and_wait(wanted.wait_s))

    code = asyncio.run(cancel())
    if code != OK:
        sys.exit(code)


class _Cancelling:
    """One run, to be cancelled."""

    def __init__(self, client: AgentClient, cluster: Cluster, settings: Settings, wanted: Wanted) -> None:
        self._client = client
        self._cluster = cluster
        self._wanted = wanted
        self._run_id = wanted.run_id
        self._screen = Screen()
        self._search = Search(
            cluster.connection, cluster.topics, settings.group_id, last=_LAST, progress=self._screen.note
        )

    async def ask(self) -> int:
        """Ask first, it may be urgent; then say what is known of the run."""
        await self._send()
        found, why = None, f"not within {LOOK_SECONDS:g} s"
        try:
            async with asyncio.timeout(LOOK_SECONDS):
                found = await self._search.find(self._run_id)
        except TimeoutError:
            pass
        except (KafkaError, CoordinatorError, TopicMissing, OSError) as error:
            why = in_words(error)  # whoever may cancel need not be allowed to read
        if self._wanted.as_json:
            self._screen.json({"asked": {"run_id": self._run_id}, "where": None if found is None else document(found)})
        elif found is None:
            self._screen.out(f"asked to cancel {self._run_id}; `agentstream where {self._run_id}` says how it ends")
            self._screen.note(f"where it is now was not found: {why}", "yellow")
        elif found.state in _OVER:
            self._screen.out(f"{self._run_id}: {sentence(found)}")
        elif found.state == "unknown":
            self._screen.out(f"asked to cancel {self._run_id}")
            self._screen.note(f"{self._run_id} {_NOT_THERE}", "yellow")
        else:
            where = f"`agentstream where {self._run_id}` says how it ends"
            self._screen.out(f"asked to cancel {self._run_id}: {sentence(found)}; {where}")
        if found is None or found.status == "cancelled":
            return OK
        return FAILED if found.state in (*_OVER, "unknown") else OK

    async def ask_and_wait(self, seconds: float) -> int:
        """Look first: of a run that has ended no result will come. Then ask, and wait for the result."""
        # The reader before all: a result that comes while we look for an older one must not slip through.
        async with ResultReader(self._cluster.connection, self._cluster.topics, start="end") as reader:
            found = await self._search.find(self._run_id)
            if found.state in _OVER:
                return await self._over(found)
            if found.state == "unknown":
                self._screen.note(f"{self._run_id} {_NOT_THERE}", "yellow")
            await self._send()
            try:
                async with asyncio.timeout(seconds):
                    async for item in reader:
                        result = item.value if isinstance(item, Read) else None
                        if isinstance(result, InvokeResult) and result.run_id == self._run_id:
                            return self._show(result)
            except TimeoutError:
                fail(f"{self._run_id} has no result after {seconds:g} s; the request to cancel it stands", TIMED_OUT)
        return FAILED  # not reached: a reader of a topic's tail never ends by itself

    async def _send(self) -> None:
        await self._client.cancel(self._run_id, self._wanted.reason, requested_by=whoever())

    async def _over(self, found: Whereabouts) -> int:
        if found.result is None:
            fail(f"{self._run_id}: {sentence(found)}; " + ("; ".join(found.notes) or "it has no result"), FAILED)
        try:
            result = await self._search.result_at(found.result)
        except LookupError as error:
            fail(f"{self._run_id}: {sentence(found)}, but {error}", FAILED)
        self._screen.note(f"{self._run_id} had ended before")
        return self._show(result)

    def _show(self, result: InvokeResult) -> int:
        if self._wanted.as_json:
            self._screen.json({"result": result.model_dump(mode="json", exclude_none=True)})
        else:
            self._screen.out(f"{result.run_id}\t{result.status}")
            if result.status != "completed":
                self._screen.note(problem_line(result))
            self._screen.note(summary(result))
        return OK if result.status == "cancelled" else FAILED


def whoever() -> str:
    """Who types this, for the result."""
    try:
        name = getpass.getuser()
    except (OSError, KeyError):  # a container whose user has no name
        name = "somebody"
    return f"{name}@{socket.gethostname()}"[:256]
