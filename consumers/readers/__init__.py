"""Readers of topics that belong to no group and commit nothing."""

from agentstream.consumers.readers.tail import Expired, TopicMissing
from agentstream.consumers.readers.topic import DeltaReader, Read, ResultReader, Start, TopicReader

__all__ = ["DeltaReader", "Expired", "Read", "ResultReader", "Start", "TopicMissing", "TopicReader"]
