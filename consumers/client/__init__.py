"""The caller's side: requests out, events and results back."""

from agentstream.consumers.client.buffer import Voided
from agentstream.consumers.client.client import AgentClient
from agentstream.consumers.client.errors import (
    BrokerUnavailable,
    ClientError,
    RequestRefused,
    ResultExpired,
    ResultUnreadable,
    RunFailed,
    RunIdTaken,
    RunTimeout,
    TopicsMissing,
)
from agentstream.consumers.client.run import Run
from agentstream.consumers.client.submitted import SubmittedRun

__all__ = [
    "AgentClient",
    "BrokerUnavailable",
    "ClientError",
    "RequestRefused",
    "ResultExpired",
    "ResultUnreadable",
    "Run",
    "RunFailed",
    "RunIdTaken",
    "RunTimeout",
    "SubmittedRun",
    "TopicsMissing",
    "Voided",
]
