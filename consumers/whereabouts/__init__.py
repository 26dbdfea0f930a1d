"""Where a run is, as the topics and the group's committed offsets tell: no worker is asked.

    Search(...).find(run_id) -> Whereabouts

The committed offset of each partition and its metadata say which requests are open and which of them were started;
the requests behind it say which run that is; the deltas say how far it came. What is finished has a line in the index.
"""

from agentstream.consumers.whereabouts.answer import Whereabouts
from agentstream.consumers.whereabouts.search import Search

__all__ = ["Search", "Whereabouts"]
