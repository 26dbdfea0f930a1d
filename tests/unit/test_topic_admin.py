import asyncio

import pytest
from aiokafka.errors import KafkaConnectionError

from agentstream.infra import topic_admin
from agentstream.producers.connection import KafkaConnection


async def test_what_takes_connections_and_never_answers_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    # `topics plan`, `worker` and `doctor` were silent for 31 s.
    monkeypatch.setattr(topic_admin, "CONNECT_SECONDS", 0.2)
    over = asyncio.Event()

    async def say_nothing(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await over.wait()
        writer.close()

    async with await asyncio.start_server(say_nothing, "127.0.0.1", 0) as server:
        where = f"127.0.0.1:{server.sockets[0].getsockname()[1]}"
        with pytest.raises(KafkaConnectionError, match=f"{where} takes connections, but did not answer"):
            async with topic_admin.topic_admin(KafkaConnection(bootstrap_servers=where)):
                pass
        over.set()
