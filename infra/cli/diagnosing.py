"""`agentstream doctor`."""

import asyncio
from dataclasses import asdict

from agentstream.infra.cli.context import Context
from agentstream.infra.cli.exits import fail
from agentstream.infra.cli.screen import Screen
from agentstream.infra.doctor import Check, examine
from agentstream.infra.settings import Settings
from agentstream.producers.connection import KafkaConnection
from agentstream.schemas.topics import Topics

_MARKS = {"ok": ("ok     ", "green"), "warning": ("warning", "yellow"), "broken": ("BROKEN ", "red")}


def run_doctor(context: Context, *, as_json: bool) -> None:
    """Print each check as it is done; fail if something is broken."""
    settings, note = context.as_dev(context.settings())
    context.quiet_logs(settings)
    if note is not None:
        Screen().note(note)
    checks = asyncio.run(_examine(context, settings, Screen(), as_json=as_json))
    broken = [check.name for check in checks if check.verdict == "broken"]
    if broken:
        fail(f"broken: {', '.join(broken)}; what to do stands beside each")


async def _examine(context: Context, settings: Settings, screen: Screen, *, as_json: bool) -> list[Check]:
    def connect() -> tuple[KafkaConnection, Topics]:
        cluster = context.cluster(settings)
        return cluster.connection, cluster.topics

    checks = []
    async for check in examine(settings, connect):
        checks.append(check)
        if not as_json:
            _show(check, screen)
    if as_json:
        screen.json([asdict(check) for check in checks], pretty=True)
    return checks


def _show(check: Check, screen: Screen) -> None:
    from agentstream.infra.cli.screen import styled

    word, style = _MARKS[check.verdict]
    mark = styled(word, style) if screen.for_people else word
    screen.out(f"{mark}  {check.name}: {check.found}")
    if check.advice:
        screen.out(f"         → {check.advice}")
