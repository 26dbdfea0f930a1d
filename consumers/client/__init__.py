"""The caller's side: requests out, events and results back."""

from agentstream.consumers.client.buffer import Voided
from agentstream.consumers.client.client import AgentClient
from agentstream.consumers.client.errors import (
    BrokerUnavailable,
    ClientError,
    ClientNotOpen,
    HistoryLost,
    RequestRefused,
    ResultExpired,
    ResultUnreadable,
    RightMissing,
    RunFailed,
    RunIdTaken,
    RunTimeout,
    SessionBusy,
    SessionUnknown,
    TopicsMissing,
)
from agentstream.consumers.client.recorded import RecordedHistory
from agentstream.consumers.client.run import Run
from agentstream.consumers.client.session import AgentSession
from agentstream.consumers.client.submitted import SubmittedRun
from agentstream.consumers.client.sync import SyncAgentClient, SyncAgentSession, SyncRun

__all__ = [
    "AgentClient",
    "AgentSession",
    "BrokerUnavailable",
    "ClientError",
    "ClientNotOpen",
    "HistoryLost",
    "RecordedHistory",
    "RequestRefused",
    "ResultExpired",
    "ResultUnreadable",
    "RightMissing",
    "Run",
    "RunFailed",
    "RunIdTaken",
    "RunTimeout",
    "SessionBusy",
    "SessionUnknown",
    "SubmittedRun",
    "SyncAgentClient",
    "SyncAgentSession",
    "SyncRun",
    "TopicsMissing",
    "Voided",
]
