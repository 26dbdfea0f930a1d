"""Who may do what: a broker that takes SCRAM over TLS alone, and an authorizer that denies what is not allowed.

The rights of each role are those of docs/operations.md, no more.
"""

import asyncio
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.protocol.admin import CreateAclsRequest

from agentstream.infra.broker import BrokerOptions, find_broker
from agentstream.infra.connection import kafka_connection
from agentstream.infra.settings import KafkaSettings
from agentstream.infra.topics import apply_topics
from agentstream.producers.connection import KafkaConnection
from agentstream.schemas.topics import Topics
from tests.conftest import PrivateKafka
from tests.integration.test_cli import Terminal, scripted
from tests.integration.test_cli_security import PASSWORD, broker_properties, certificate
from tests.integration.test_http_port import free_port
from tests.support.waiting import patience

__all__ = ["certificate"]

TOPIC, GROUP, CLUSTER, TRANSACTIONAL_ID = 2, 3, 4, 5
LITERAL, PREFIXED = 3, 4
READ, WRITE, DESCRIBE, DESCRIBE_CONFIGS = 3, 4, 8, 10
ALLOW = 3
Right = tuple[int, str, int, int]
"""Resource type, name, pattern, operation."""


@dataclass(frozen=True, kw_only=True)
class Guarded:
    """A broker that lets in whom it knows, and the topics on it."""

    admin: KafkaConnection
    certificate: Path
    topics: Topics
    home: Path

    @property
    def group_id(self) -> str:
        return f"{self.topics.prefix}workers"

    def of(self, user: str, *, password: str = PASSWORD, **more: str) -> Terminal:
        """A terminal of a user, who has SCRAM."""
        variables = {
            "KAFKA_BOOTSTRAP_SERVERS": self.admin.bootstrap_servers,
            "KAFKA_SECURITY_PROTOCOL": "SASL_SSL",
            "KAFKA_SASL_MECHANISM": "SCRAM-SHA-512",
            "KAFKA_SASL_USERNAME": user,
            "KAFKA_SASL_PASSWORD": password,
            "KAFKA_SSL_CAFILE": str(self.certificate),
            "AGENTSTREAM_TOPIC_PREFIX": self.topics.prefix,
            "AGENTSTREAM_GROUP_ID": self.group_id,
            "AGENTSTREAM_HARNESSES": "scripted",
            "AGENTSTREAM_LOG_FORMAT": "console",
            **more,
        }
        return Terminal(home=self.home, variables=variables)

    async def allow(self, user: str, rights: Iterable[Right]) -> None:
        client = AIOKafkaAdminClient(**self.admin.client_options())
        await client.start()
        try:
            for kind, name, pattern, operation in rights:
                request = CreateAclsRequest(kind, name, pattern, f"User:{user}", "*", operation, ALLOW)
                answer = await client._send_to_controller(request)
                assert [error for error, _ in answer.creation_responses] == [0], answer
        finally:
            await client.close()

    def of_worker(self) -> list[Right]:
        """Literally those of docs/operations.md."""
        names = self.topics
        return [
            *((TOPIC, name, LITERAL, READ) for name in (names.invoke_requests, names.control, names.finished_runs)),
            *((TOPIC, name, LITERAL, WRITE) for name in names.outputs),
            (GROUP, self.group_id, LITERAL, READ),
            (TRANSACTIONAL_ID, f"{self.group_id}.", PREFIXED, WRITE),
        ]

    def of_caller(self) -> list[Right]:
        names = self.topics
        return [
            *((TOPIC, name, LITERAL, WRITE) for name in (names.invoke_requests, names.control)),
            *((TOPIC, name, LITERAL, READ) for name in (names.assistant_messages, names.stream_deltas)),
        ]

    def of_operator(self) -> list[Right]:
        return [
            (TOPIC, self.topics.prefix, PREFIXED, READ),
            (TOPIC, self.topics.control, LITERAL, WRITE),
            (GROUP, self.group_id, LITERAL, DESCRIBE),
        ]


@pytest.fixture
async def guarded(private_kafka: PrivateKafka, certificate: tuple[Path, Path], topics: str, tmp_path: Path) -> Guarded:
    if find_broker(own=True).kind != "maven":
        pytest.skip("the listeners of the Docker broker are its own")
    scram = "org.apache.kafka.common.security.scram.ScramLoginModule required;"
    properties = {
        **broker_properties(*certificate),
        "sasl.enabled.mechanisms": "PLAIN,SCRAM-SHA-512",
        "listener.name.plaintext.scram-sha-512.sasl.jaas.config": scram,
        "authorizer.class.name": "org.apache.kafka.metadata.authorizer.StandardAuthorizer",
        # The broker speaks to its controller, on another listener, without a name.
        "super.users": "User:admin;User:ANONYMOUS",
    }
    users = dict.fromkeys(("worker", "caller", "operator", "nobody"), PASSWORD)
    broker = await private_kafka(BrokerOptions(properties=properties, scram_users=users))
    settings = KafkaSettings.model_validate(
        {
            "bootstrap_servers": broker.bootstrap_servers,
            "security_protocol": "SASL_SSL",
            "sasl_username": "admin",
            "sasl_password": "admin",
            "ssl_cafile": str(certificate[0]),
        }
    )
    one = Guarded(
        admin=kafka_connection(settings), certificate=certificate[0], topics=Topics(prefix=topics), home=tmp_path
    )
    await apply_topics(one.admin, one.topics, partitions=1)
    return one


async def test_each_role_works_with_its_rights_and_no_more_and_the_others_are_told_in_one_line(
    guarded: Guarded,
) -> None:
    prefix = guarded.topics.prefix
    await guarded.allow("worker", guarded.of_worker())
    await guarded.allow("caller", guarded.of_caller())
    await guarded.allow("operator", guarded.of_operator())
    async with guarded.of("worker").worker():
        asked = await guarded.of("caller").type("invoke", "hi", "--json", *scripted(text="let in"))
        assert asked.code == 0, asked.err
        run_id = asked.out.split('"run_id": "')[1].split('"')[0]
        found = await guarded.of("operator").type("where", run_id)
        assert (found.code, "it has ended: completed" in found.out) == (0, True), found.err
        cancelled = await guarded.of("operator").type("cancel", "another")
        assert (cancelled.code, cancelled.out) == (1, "asked to cancel another\n"), cancelled.err
        assert "another is not on the log" in cancelled.err
        # Whoever may not, is told so at once.
        for user, command, code, words in (
            ("nobody", ["worker"], 3, "this user may not see them"),
            ("nobody", ["invoke", "hi", "--timeout", "20"], 3, "this user may not write to any topic"),
            ("nobody", ["where", run_id], 3, "this user may not see it"),
            ("nobody", ["cancel", run_id], 3, "this user may not write to any topic"),
            ("caller", ["where", run_id], 3, f"lacks the right Describe on group {guarded.group_id}"),
            ("caller", ["worker"], 3, "this user may not see them"),
            (
                "operator",
                ["topics", "apply", "--partitions", "2", "--yes"],
                3,
                "lacks the right DescribeConfigs on topic",
            ),
            ("operator", ["invoke", "hi", "--timeout", "20"], 3, f"may not write to {guarded.topics.invoke_requests}"),
            ("nobody", ["topics", "plan"], 3, f"lacks the right Describe on topic {prefix}"),
        ):
            done = await guarded.of(user).type(*command)
            assert (done.code, done.err.count("\n")) == (code, 1), (user, command, done)
            assert words in done.err, (user, command, done)
    for command in (["worker"], ["invoke", "hi", "--timeout", "10"], ["where", "x"], ["topics", "plan"]):
        done = await guarded.of("worker", password="a-wrong-password").type(*command)
        assert done.code == 3, (command, done)
        assert "Traceback" not in done.err
        assert PASSWORD not in done.err


async def test_doctor_names_the_right_that_is_missing_and_goes_on(guarded: Guarded) -> None:
    prefix, group = guarded.topics.prefix, guarded.group_id
    denied = await guarded.of("nobody").type("doctor")
    assert denied.code == 1
    assert f"lacks the right Describe on topic {prefix}" in denied.out
    assert f"lacks the right Describe on group {group}" in denied.out
    await guarded.allow("operator", [(TOPIC, prefix, PREFIXED, right) for right in (DESCRIBE, DESCRIBE_CONFIGS)])
    without_group = await guarded.of("operator").type("doctor")
    assert "topics: 1 partitions, all as it should be" in without_group.out, without_group
    assert f"lacks the right Describe on group {group}" in without_group.out
    assert "does not answer" not in without_group.out
    wrong = await guarded.of("operator", password="a-wrong-password").type("doctor")
    assert "Authentication failed" in wrong.out, "it said KafkaConnectionError"


async def test_a_worker_that_lacks_a_right_stays_says_which_and_goes_on_when_it_has_it(guarded: Guarded) -> None:
    rights = guarded.of_worker()
    missing = (TRANSACTIONAL_ID, f"{guarded.group_id}.", PREFIXED, WRITE)
    await guarded.allow("worker", [right for right in rights if right != missing])
    await guarded.allow("caller", guarded.of_caller())
    port = free_port()
    terminal = guarded.of("worker", AGENTSTREAM_HTTP_PORT=str(port))
    async with terminal.worker() as worker, httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}") as probe:
        async with patience():
            while "none of its partitions is open" not in ((await probe.get("/readyz")).json()["reason"] or ""):
                await asyncio.sleep(0.1)
        assert (await probe.get("/livez")).status_code == 200, "a restart would not help"
        assert worker.stderr is not None
        said = ""
        async with patience():
            while "could not be acquired" not in said:
                said = (await worker.stderr.readline()).decode()
        assert "TransactionalIdAuthorizationFailed" in said
        assert "Traceback" not in said
        await guarded.allow("worker", [missing])
        asked = await guarded.of("caller").type("invoke", "hi", *scripted(text="let in"))
        assert (asked.code, asked.out) == (0, "let in\n"), asked.err
        assert worker.returncode is None
