"""What was said of replayed runs, as it stands on the log."""

from agentstream.consumers.readers import Read, TopicReader
from agentstream.schemas.evaluations import EvaluationResult
from agentstream.schemas.headers import CE_SUBJECT, CE_TYPE, EVALUATION, last_wins
from agentstream.schemas.readers import decode_evaluation
from tests.support.cluster import Cluster
from tests.support.waiting import patience


async def evaluations(cluster: Cluster) -> list[EvaluationResult]:
    """All that lies on the topic, each under its session's key and the headers of its run."""
    reader = TopicReader[EvaluationResult](
        cluster.connection, cluster.topics.evaluations, decode_evaluation, start="beginning", until_end=True
    )
    read: list[EvaluationResult] = []
    async with patience(), reader:
        async for item in reader:
            assert isinstance(item, Read), item
            value, headers = item.value, last_wins(item.record.headers)
            assert isinstance(value, EvaluationResult), value
            assert (headers[CE_TYPE], headers[CE_SUBJECT]) == (EVALUATION.encode(), value.run_id.encode())
            assert item.record.key == value.session_id.encode()
            read.append(value)
    return read
