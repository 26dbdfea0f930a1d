"""Which model `dev` and the demo use: a provider whose key is there, else the offline model."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

from pydantic import SecretStr

from agentstream.infra.offline_model import OfflineModel
from agentstream.infra.settings import OFFLINE, CredentialSettings, Settings

OFFLINE_KEY = "offline-needs-no-key"
_MODELS = {"openai": "openai/gpt-5-mini", "anthropic": "anthropic/claude-haiku-4-5"}
"""Small, cheap, and in Pi's catalogue. AGENTSTREAM_MODEL names another."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Chosen:
    """Settings with a model that can be used."""

    settings: Settings
    """With model and credentials."""
    offline: bool
    """Whether it is the offline model."""
    note: str
    """One line that says which model it is, and why."""


@asynccontextmanager
async def usable_model(settings: Settings) -> AsyncIterator[Chosen]:
    """The settings with a model. The offline one is served until the end."""
    if settings.model is not None:
        yield Chosen(settings=settings, offline=False, note=f"Model: {settings.model}.")
        return
    for credentials in settings.credentials.values():
        if name := _MODELS.get(credentials.provider):
            note = f"Model: {name}, with your key; calls are billed by {credentials.provider}."
            yield Chosen(settings=settings.model_copy(update={"model": name}), offline=False, note=note)
            return
    async with OfflineModel() as model:
        own = CredentialSettings(
            provider=OFFLINE, api_key=SecretStr(OFFLINE_KEY), base_url=model.base_url, api="openai-completions"
        )
        update = {"model": f"{OFFLINE}/{OFFLINE}", "credentials": {**settings.credentials, OFFLINE: own}}
        yield Chosen(
            settings=settings.model_copy(update=update),
            offline=True,
            note="Model: offline. It follows a script, since neither OPENAI_API_KEY nor ANTHROPIC_API_KEY is set.",
        )
