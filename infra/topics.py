"""Makes the topics what they should be: reads the cluster, plans, does the steps. `topic_plan` decides."""

from collections.abc import Callable

from agentstream.infra.topic_admin import TopicsError, topic_admin
from agentstream.infra.topic_plan import Step, TopicsPlan, plan_topics
from agentstream.producers.connection import KafkaConnection
from agentstream.schemas.topics import MAX_REQUEST_BYTES, Topics

__all__ = ["TopicsError", "apply_topics", "every_topic", "read_plan"]


def every_topic(topics: Topics) -> tuple[str, ...]:
    """Names of all topics under a prefix."""
    return (*topics.outputs, topics.evaluations, topics.control, topics.invoke_requests)


async def read_plan(
    connection: KafkaConnection,
    topics: Topics,
    *,
    partitions: int | None = None,
    max_request_bytes: int = MAX_REQUEST_BYTES,
) -> TopicsPlan:
    """What would have to be done. Raises TopicsError, or aiokafka's KafkaError if no broker answers."""
    async with topic_admin(connection) as admin:
        state = await admin.state(every_topic(topics))
    return plan_topics(
        topics, state.topics, brokers=state.brokers, partitions=partitions, max_request_bytes=max_request_bytes
    )


async def apply_topics(
    connection: KafkaConnection,
    topics: Topics,
    *,
    partitions: int | None = None,
    max_request_bytes: int = MAX_REQUEST_BYTES,
    allow_reordering: bool = False,
    done: Callable[[Step], None] | None = None,
) -> TopicsPlan:
    """Plan and do it, step by step; `done` hears of each. Safe to repeat, also after a failure half-way.

    Raises TopicsError where a broker or the plan refuses, or where growing the input wants `allow_reordering`.
    """
    plan = await read_plan(connection, topics, partitions=partitions, max_request_bytes=max_request_bytes)
    if plan.refusal is not None:
        raise TopicsError(plan.refusal)
    if plan.consent is not None and not allow_reordering:
        raise TopicsError(f"{plan.consent} Say --yes to do it.")
    if plan.steps:
        async with topic_admin(connection) as admin:
            for step in plan.steps:
                await admin.do(step)
                if done is not None:
                    done(step)
    return plan
