"""The agent's interface as it is with these settings: what requests may ask for, and what takes effect otherwise."""

from dataclasses import dataclass
from pathlib import Path

from pydantic import JsonValue

from agentstream.consumers.agent_config import WorkerAgentConfig, admit, findings
from agentstream.consumers.agent_files import Finding
from agentstream.consumers.effective import EffectiveParameters
from agentstream.consumers.harness.pi import PiHarness, PiSettings
from agentstream.consumers.harness.pi_http import PiHttpHarness
from agentstream.consumers.harness.pi_http_stream import HttpPlace
from agentstream.consumers.harness.port import Harness
from agentstream.consumers.harness.scripted import ScriptedHarness
from agentstream.infra.compose import agent_config
from agentstream.infra.harnesses import check_kinds
from agentstream.infra.settings import Settings
from agentstream.infra.topics import every_topic
from agentstream.schemas.asyncapi import asyncapi
from agentstream.schemas.json_schema import json_schemas
from agentstream.schemas.messages import Message
from agentstream.schemas.requests import InvokeRequest
from agentstream.schemas.topics import Topics


@dataclass(frozen=True, kw_only=True, slots=True)
class Interface:
    """What a caller can rely on."""

    topics: Topics
    """The topics."""
    config: WorkerAgentConfig
    """What the worker allows."""
    findings: tuple[Finding, ...]
    """What in the worker's files cannot be used."""

    @property
    def defaults(self) -> dict[str, JsonValue]:
        """What takes effect where a request says nothing, by the names of `AgentParameters`."""
        request = InvokeRequest(messages=(Message.of_text("user", "?"),))
        match admit(request, self.config):
            case EffectiveParameters() as effective:
                shown: dict[str, JsonValue] = effective.to_wire().model_dump(mode="json", exclude_none=True)
                return shown
            case refused:
                raise ValueError(refused.problem.detail)

    def document(self) -> dict[str, JsonValue]:
        """Everything as JSON."""
        return {
            "topics": [*every_topic(self.topics)],
            "allowed": {
                "harnesses": [*self.config.harnesses],
                "tools": [*sorted(self.config.tools)],
                "credentials": [*sorted(self.config.credentials)],
            },
            "defaults": self.defaults,
            "findings": [f"{found.file}: {found.field or 'whole'}: {found.problem}" for found in self.findings],
            "schemas": {**json_schemas(self.defaults)},
        }

    def asyncapi(self, *, partitions: int | None = None) -> dict[str, JsonValue]:
        """The AsyncAPI 3.1 document, with the defaults that take effect."""
        return asyncapi(self.topics, effective=self.defaults, partitions=partitions)


def read_interface(settings: Settings) -> Interface:
    """Needs neither Kafka nor an open harness. Raises SettingsError."""
    check_kinds(settings)
    closed: dict[str, Harness] = {
        "pi": PiHarness(PiSettings(node=Path("node"), sidecar=Path("main.js"), temporary=Path())),
        "pi-http": PiHttpHarness(HttpPlace(url="http://sidecar")),
        "scripted": ScriptedHarness(),
    }
    config = agent_config(settings, {kind: closed[kind] for kind in settings.harnesses})
    return Interface(topics=Topics(prefix=settings.topic_prefix), config=config, findings=findings(config))
