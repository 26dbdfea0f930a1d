import asyncio

import pytest
from aiokafka.errors import KafkaConnectionError

from agentstream.infra.broker import BrokerOptions
from agentstream.infra.topic_admin import TopicsMissing, topic_admin
from agentstream.infra.topic_plan import CreateTopic, GrowTopic, SetConfig
from agentstream.infra.topics import TopicsError, apply_topics, every_topic, read_plan
from agentstream.infra.worker_process import check_topics
from agentstream.producers.connection import KafkaConnection
from agentstream.schemas.topics import Topics
from tests.conftest import PrivateKafka


@pytest.fixture
def connection(kafka: str) -> KafkaConnection:
    return KafkaConnection(bootstrap_servers=kafka)


@pytest.fixture
def names(topics: str) -> Topics:
    return Topics(prefix=topics)


async def test_apply_creates_everything_and_the_second_time_does_nothing(
    connection: KafkaConnection, names: Topics
) -> None:
    plan = await read_plan(connection, names, partitions=3)
    assert len(plan.steps) == 7
    done: list[object] = []
    await apply_topics(connection, names, partitions=3, done=done.append)
    assert done == list(plan.steps)
    again = await apply_topics(connection, names)
    assert (again.steps, again.notes, again.partitions) == ((), (), 3)
    async with topic_admin(connection) as admin:
        found = (await admin.state(every_topic(names))).topics
    assert {name: topic.partitions for name, topic in found.items()} == dict.fromkeys(every_topic(names), 3) | {
        names.control: 1
    }
    assert found[names.stream_deltas].configs["retention.ms"] == str(7 * 24 * 3_600_000)
    assert found[names.assistant_messages].configs["max.message.bytes"] == str(1_048_576 + 65_536)


async def test_a_worker_starts_without_the_topic_of_evaluations_and_with_no_other_missing(
    connection: KafkaConnection, names: Topics
) -> None:
    await apply_topics(connection, names, partitions=1)
    for name in every_topic(names):
        async with topic_admin(connection) as admin:
            await admin.delete([name])
            while name in await admin.names():
                await asyncio.sleep(0.05)
        if name == names.evaluations:
            await check_topics(connection, names)
        else:
            with pytest.raises(TopicsMissing, match=name):
                await check_topics(connection, names)
        await apply_topics(connection, names)


async def test_growing_the_input_wants_consent_and_leaves_no_topic_behind(
    connection: KafkaConnection, names: Topics
) -> None:
    await apply_topics(connection, names, partitions=2)
    with pytest.raises(TopicsError, match=r"not in order.*--yes"):
        await apply_topics(connection, names, partitions=4)
    async with topic_admin(connection) as admin:
        assert (await admin.state([names.stream_deltas])).topics[names.stream_deltas].partitions == 2
    await apply_topics(connection, names, partitions=4, allow_reordering=True)
    assert (await read_plan(connection, names)).partitions == 4
    with pytest.raises(TopicsError, match="takes no partitions away"):
        await apply_topics(connection, names, partitions=3)


async def test_unequal_counts_are_refused_until_they_are_made_equal(connection: KafkaConnection, names: Topics) -> None:
    await apply_topics(connection, names, partitions=2)
    async with topic_admin(connection) as admin:
        await admin.do(GrowTopic(name=names.stream_deltas, before=2, after=5))
    with pytest.raises(TopicsError, match=r"unequal.*--partitions 5"):
        await apply_topics(connection, names)
    await apply_topics(connection, names, partitions=5, allow_reordering=True)
    assert (await read_plan(connection, names)).steps == ()


async def test_a_setting_is_put_right_and_the_operators_others_stay(connection: KafkaConnection, names: Topics) -> None:
    await apply_topics(connection, names, partitions=1)
    async with topic_admin(connection) as admin:
        # aiokafka's own AlterConfigs would take `segment.bytes` back when it sets something else.
        for key, value in (("segment.bytes", "2000000"), ("max.message.bytes", "5000"), ("retention.ms", "60000")):
            await admin.do(SetConfig(name=names.dead_letters, key=key, before=None, after=value))
    plan = await apply_topics(connection, names)
    assert [str(step) for step in plan.steps] == [f"set max.message.bytes of {names.dead_letters} from 5000 to 1114112"]
    async with topic_admin(connection) as admin:
        configs = (await admin.state([names.dead_letters])).topics[names.dead_letters].configs
    assert (configs["segment.bytes"], configs["max.message.bytes"], configs["retention.ms"]) == (
        "2000000",
        "1114112",
        "60000",
    )


async def test_a_refusal_of_the_brokers_is_an_error_in_one_line(connection: KafkaConnection, names: Topics) -> None:
    # aiokafka returns all of these as responses like any other.
    wrong = (
        CreateTopic(name=f"{names.prefix}not allowed", partitions=1, replication=1, configs={}),
        CreateTopic(name=f"{names.prefix}x", partitions=1, replication=99, configs={}),
        CreateTopic(name=f"{names.prefix}x", partitions=1, replication=1, configs={"no.such.setting": "1"}),
        GrowTopic(name=f"{names.prefix}missing", before=1, after=2),
        SetConfig(name=f"{names.prefix}missing", key="retention.ms", before=None, after="1"),
    )
    async with topic_admin(connection) as admin:
        for step in wrong:
            with pytest.raises(TopicsError, match=r"^[^\n]+$"):
                await admin.do(step)


async def test_two_that_apply_at_once_do_not_disturb_each_other(connection: KafkaConnection, names: Topics) -> None:
    step = CreateTopic(name=names.control, partitions=1, replication=1, configs={})
    async with topic_admin(connection) as one, topic_admin(connection) as other:
        await one.do(step)
        await other.do(step)


async def test_three_brokers_get_three_replicas_of_which_two_must_be_in_sync(
    private_kafka: PrivateKafka, names: Topics
) -> None:
    broker = await private_kafka(BrokerOptions(brokers=3))
    connection = KafkaConnection(bootstrap_servers=broker.bootstrap_servers)
    await apply_topics(connection, names, partitions=2)
    async with topic_admin(connection) as admin:
        state = await admin.state(every_topic(names))
    assert state.brokers == 3
    assert {topic.replication for topic in state.topics.values()} == {3}
    assert {topic.configs["min.insync.replicas"] for topic in state.topics.values()} == {"2"}
    assert (await read_plan(connection, names)).steps == ()


async def test_no_broker_is_an_error_that_says_so(names: Topics) -> None:
    with pytest.raises(KafkaConnectionError):
        await read_plan(KafkaConnection(bootstrap_servers="127.0.0.1:1"), names)
