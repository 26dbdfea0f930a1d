"""`agentstream cancel`."""

import asyncio
import getpass
import socket
import sys

from agentstream.consumers.client import AgentClient
from agentstream.consumers.readers import Read, ResultReader
from agentstream.consumers.whereabouts import Search
from agentstream.infra.cli.context import Cluster, Context
from agentstream.infra.cli.exits import FAILED, OK, TIMED_OUT, UNAVAILABLE, fail
from agentstream.infra.cli.screen import Screen
from agentstream.infra.rendering import problem_line, summary
from agentstream.infra.settings import Settings
from agentstream.infra.topic_admin import topic_admin
from agentstream.schemas.results import InvokeResult

_LAST = 100_000
_APPLY = "`agentstream topics apply` makes what is missing"


def run_cancel(context: Context, run_id: str, reason: str | None, *, wait_s: float | None, as_json: bool) -> None:
    """Ask for it, and with `wait_s` show how the run ended: exit code 0 for cancelled, 1 for any other end."""
    settings = context.settings()
    context.quiet_logs(settings)
    cluster = context.cluster(settings)
    screen = Screen()

    async def cancel() -> int:
        async with topic_admin(cluster.connection) as admin:
            seen = await admin.names()  # says within 10 s that nobody answers; a producer takes 40 s, also for a topic
        async with AgentClient(connection=cluster.connection, topic_prefix=cluster.topics.prefix) as client:
            if cluster.topics.control not in seen:
                fail(f"no such topic: {cluster.topics.control}, or this user may not see it; {_APPLY}", UNAVAILABLE)
            if wait_s is not None:
                return await _cancel_and_wait(client, cluster, settings, (run_id, reason, wait_s), screen, as_json)
            await client.cancel(run_id, reason, requested_by=whoever())
            if as_json:
                screen.json({"asked": {"run_id": run_id}})
            else:
                screen.out(f"asked to cancel {run_id}; `agentstream where {run_id}` says how it ends")
            return OK

    code = asyncio.run(cancel())
    if code != OK:
        sys.exit(code)


async def _cancel_and_wait(
    client: AgentClient,
    cluster: Cluster,
    settings: Settings,
    asked: tuple[str, str | None, float],
    screen: Screen,
    as_json: bool,
) -> int:
    run_id, reason, wait_s = asked
    # The reader first: a result that comes while we look for an older one must not slip through.
    async with ResultReader(cluster.connection, cluster.topics, start="end") as reader:
        search = Search(cluster.connection, cluster.topics, settings.group_id, last=_LAST, progress=screen.note)
        found = await search.find(run_id)
        if found.state == "finished" and found.result is not None:
            result = await search.result_at(found.result)
            screen.note(f"{run_id} had ended before")
            return _show(result, screen, as_json=as_json)
        if found.state == "unknown":
            screen.note(f"{run_id} is not on the log; it will be cancelled if it comes", "yellow")
        await client.cancel(run_id, reason, requested_by=whoever())
        try:
            async with asyncio.timeout(wait_s):
                async for item in reader:
                    if isinstance(item, Read) and isinstance(item.value, InvokeResult) and item.value.run_id == run_id:
                        return _show(item.value, screen, as_json=as_json)
        except TimeoutError:
            fail(f"{run_id} has no result after {wait_s:g} s; the request to cancel it stands", TIMED_OUT)
    return FAILED  # not reached: a reader of a topic's tail never ends by itself


def _show(result: InvokeResult, screen: Screen, *, as_json: bool) -> int:
    if as_json:
        screen.json({"result": result.model_dump(mode="json", exclude_none=True)})
    else:
        screen.out(f"{result.run_id}\t{result.status}")
        if result.status != "completed":
            screen.note(problem_line(result))
        screen.note(summary(result))
    return OK if result.status == "cancelled" else FAILED


def whoever() -> str:
    """Who types this, for the result."""
    try:
        name = getpass.getuser()
    except (OSError, KeyError):  # a container whose user has no name
        name = "somebody"
    return f"{name}@{socket.gethostname()}"[:256]
