"""`agentstream topics plan` and `apply`."""

import asyncio

from pydantic import JsonValue

from agentstream.infra.cli.context import Context
from agentstream.infra.cli.exits import FAILED, USAGE, fail
from agentstream.infra.cli.screen import Screen
from agentstream.infra.topic_plan import CreateTopic, GrowTopic, Step, TopicsPlan
from agentstream.infra.topics import apply_topics, read_plan


def show_plan(context: Context, *, partitions: int | None, as_json: bool) -> None:
    """Print the difference; fail with the plan's refusal."""
    settings = context.settings()
    context.quiet_logs(settings)
    cluster = context.cluster(settings)
    plan = asyncio.run(
        read_plan(
            cluster.connection,
            cluster.topics,
            partitions=partitions,
            max_request_bytes=settings.max_request_bytes,
        )
    )
    screen = Screen()
    if as_json:
        screen.json(_as_json(plan))
    else:
        _show(plan, screen)
    if plan.refusal is not None:
        fail(plan.refusal, FAILED)


def apply_plan(context: Context, *, partitions: int | None, yes: bool, as_json: bool) -> None:
    """Do it and print each step."""
    settings = context.settings()
    context.quiet_logs(settings)
    cluster = context.cluster(settings)
    screen = Screen()

    async def apply() -> TopicsPlan:
        plan = await read_plan(
            cluster.connection,
            cluster.topics,
            partitions=partitions,
            max_request_bytes=settings.max_request_bytes,
        )
        if plan.consent is not None and not yes:
            fail(f"{plan.consent} Say --yes to do it.", USAGE)
        return await apply_topics(
            cluster.connection,
            cluster.topics,
            partitions=partitions,
            max_request_bytes=settings.max_request_bytes,
            allow_reordering=yes,
            done=None if as_json else lambda step: screen.out(f"done: {step}"),
        )

    plan = asyncio.run(apply())
    if as_json:
        screen.json(_as_json(plan))
        return
    for note in plan.notes:
        screen.note(f"left: {note}")
    if not plan.steps:
        screen.out(f"nothing to do: {plan.partitions} partitions, all as it should be")


def _show(plan: TopicsPlan, screen: Screen) -> None:
    for step in plan.steps:
        screen.out(f"would {step}")
    for note in plan.notes:
        screen.note(f"left: {note}")
    if plan.consent is not None:
        screen.note(f"needs --yes: {plan.consent}", "yellow")
    if not plan.steps and plan.refusal is None:
        screen.out(f"nothing to do: {plan.partitions} partitions, all as it should be")


def _as_json(plan: TopicsPlan) -> JsonValue:
    return {
        "partitions": plan.partitions,
        "steps": [_step(step) for step in plan.steps],
        "notes": list(plan.notes),
        "needs_yes": plan.consent,
        "refusal": plan.refusal,
    }


def _step(step: Step) -> JsonValue:
    match step:
        case CreateTopic():
            return {
                "do": "create",
                "topic": step.name,
                "partitions": step.partitions,
                "replication": step.replication,
                "configs": dict(step.configs),
            }
        case GrowTopic():
            return {"do": "grow", "topic": step.name, "from": step.before, "to": step.after}
        case _:
            return {"do": "set", "topic": step.name, "config": step.key, "from": step.before, "to": step.after}
