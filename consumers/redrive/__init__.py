"""Sends dead letters again: each once, whatever kills it in the middle.

    Redriver(RedrivePlan(...), ...).run() -> Counts

What it sends and how far it has come go out in one transaction, so that the next one of the same name goes on where
this one stood. Two of one name fence each other: the later one goes on, the earlier one ends.
"""

from agentstream.consumers.redrive.plan import RedrivePlan
from agentstream.consumers.redrive.redriver import Redriver
from agentstream.consumers.redrive.steps import Counts, Step

__all__ = ["Counts", "RedrivePlan", "Redriver", "Step"]
