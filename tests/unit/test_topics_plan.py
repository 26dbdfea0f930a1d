from collections.abc import Mapping

from hypothesis import given
from hypothesis import strategies as st

from agentstream.infra.topic_plan import CreateTopic, GrowTopic, SetConfig, Step, TopicFound, TopicsPlan, plan_topics
from agentstream.infra.topics import every_topic
from agentstream.schemas.topics import Topics

TOPICS = Topics()
KEYED = (*TOPICS.outputs, TOPICS.invoke_requests)


def play(found: Mapping[str, TopicFound], steps: tuple[Step, ...]) -> dict[str, TopicFound]:
    """Do to a dictionary what a cluster would do."""
    after = dict(found)
    for step in steps:
        match step:
            case CreateTopic():
                after[step.name] = TopicFound(
                    partitions=step.partitions, replication=step.replication, configs=step.configs
                )
            case GrowTopic():
                before = after[step.name]
                after[step.name] = TopicFound(
                    partitions=step.after, replication=before.replication, configs=before.configs
                )
            case SetConfig():
                before = after[step.name]
                configs = {**before.configs, step.key: step.after}
                after[step.name] = TopicFound(
                    partitions=before.partitions, replication=before.replication, configs=configs
                )
    return after


def fresh(partitions: int, *, brokers: int = 3) -> dict[str, TopicFound]:
    return play({}, plan_topics(TOPICS, {}, brokers=brokers, partitions=partitions).steps)


def test_everything_is_created_outputs_first_and_the_input_last() -> None:
    plan = plan_topics(TOPICS, {}, brokers=1, partitions=4)
    names = [step.name for step in plan.steps]
    assert set(names) == set(every_topic(TOPICS))
    # A request that finds the input but no output would be kept waiting with its partition closed.
    assert names[-1] == TOPICS.invoke_requests
    assert plan.consent is None


def test_replication_is_three_where_the_cluster_allows_and_two_must_be_in_sync_only_then() -> None:
    for brokers, replication, in_sync in ((1, "1", "1"), (2, "2", "1"), (3, "3", "2"), (9, "3", "2")):
        found = fresh(1, brokers=brokers)[TOPICS.assistant_messages]
        assert (str(found.replication), found.configs["min.insync.replicas"]) == (replication, in_sync)
        assert found.configs["unclean.leader.election.enable"] == "false"


def test_growing_the_input_needs_consent_and_happens_last() -> None:
    plan = plan_topics(TOPICS, fresh(4), brokers=3, partitions=6)
    assert plan.consent is not None
    assert "from 4 to 6" in plan.consent
    assert [step.name for step in plan.steps] == [*TOPICS.outputs, TOPICS.evaluations, TOPICS.invoke_requests]


def test_a_growth_that_was_cut_short_is_refused_until_somebody_says_how_many() -> None:
    found = fresh(4)
    half = play(found, plan_topics(TOPICS, found, brokers=3, partitions=6).steps[:2])
    refused = plan_topics(TOPICS, half, brokers=3)
    assert refused.refusal is not None
    assert "--partitions 6" in refused.refusal
    assert refused.steps == ()
    resumed = plan_topics(TOPICS, half, brokers=3, partitions=6)
    assert {topic.partitions for name, topic in play(half, resumed.steps).items() if name in KEYED} == {6}


def test_an_output_that_lags_behind_the_input_is_grown_without_consent() -> None:
    found = fresh(4)
    found[TOPICS.dead_letters] = TopicFound(partitions=2, replication=3, configs=found[TOPICS.dead_letters].configs)
    plan = plan_topics(TOPICS, found, brokers=3, partitions=4)
    assert plan.steps == (GrowTopic(name=TOPICS.dead_letters, before=2, after=4),)
    assert plan.consent is None


def test_fewer_partitions_are_refused() -> None:
    refused = plan_topics(TOPICS, fresh(4), brokers=3, partitions=2)
    assert refused.refusal is not None
    assert "--partitions 4" in refused.refusal


def test_what_the_promises_need_is_set_and_what_the_operator_chose_is_left() -> None:
    found = fresh(2)
    configs = {
        **found[TOPICS.assistant_messages].configs,
        "max.message.bytes": "1000",
        "unclean.leader.election.enable": "true",
        "retention.ms": "60000",
    }
    found[TOPICS.assistant_messages] = TopicFound(partitions=2, replication=1, configs=configs)
    plan = plan_topics(TOPICS, found, brokers=3)
    assert {(step.key, step.after) for step in plan.steps if isinstance(step, SetConfig)} == {
        ("max.message.bytes", "1114112"),
        ("min.insync.replicas", "1"),
        ("unclean.leader.election.enable", "false"),
    }
    assert any("retention.ms=60000" in note for note in plan.notes)
    assert any("replication 1" in note for note in plan.notes)


found_topics = st.dictionaries(
    st.sampled_from(every_topic(TOPICS)),
    st.builds(
        TopicFound,
        partitions=st.integers(1, 5),
        replication=st.integers(1, 3),
        configs=st.dictionaries(
            st.sampled_from(["max.message.bytes", "min.insync.replicas", "retention.ms", "other"]),
            st.sampled_from(["1", "2", "1048576"]),
        ),
    ),
)


@given(found_topics, st.integers(1, 4), st.none() | st.integers(1, 6))
def test_a_plan_that_is_carried_out_leaves_nothing_to_do(
    found: dict[str, TopicFound], brokers: int, partitions: int | None
) -> None:
    plan: TopicsPlan = plan_topics(TOPICS, found, brokers=brokers, partitions=partitions)
    if plan.refusal is not None:
        assert plan.steps == ()
        return
    after = play(found, plan.steps)
    assert {after[name].partitions for name in KEYED} == {plan.partitions}
    again = plan_topics(TOPICS, after, brokers=brokers, partitions=partitions)
    assert (again.steps, again.consent, again.refusal) == ((), None, None)
    before = found.get(TOPICS.invoke_requests)
    assert (plan.consent is not None) == (before is not None and before.partitions < plan.partitions)
