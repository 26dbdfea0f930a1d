"""A model that needs no provider: an OpenAI-compatible endpoint on loopback that follows a script.

    async with OfflineModel() as model:   # for tests and demos
        model.base_url, model.calls

What it answers stands in the conversation: directives such as `[[tool:bash {"command": "echo hi"}]]` (`directives.py`),
else a few plain sentences it understands (`conversation.py`). It says that it is offline.
"""

from agentstream.infra.offline_model.server import Call, OfflineModel, closed_port

__all__ = ["Call", "OfflineModel", "closed_port"]
