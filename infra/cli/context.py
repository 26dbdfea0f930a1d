"""What every command is given: where the settings are, and how to reach the cluster."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from agentstream.infra.dev_state import DevState
    from agentstream.infra.settings import Settings
    from agentstream.producers.connection import KafkaConnection
    from agentstream.schemas.topics import Topics


@dataclass(frozen=True, kw_only=True, slots=True)
class Cluster:
    """A cluster, and the topics on it."""

    connection: "KafkaConnection"
    """How to reach it."""
    topics: "Topics"
    """The topics."""
    is_dev: bool = False
    """Whether it is that of `agentstream dev` in another terminal."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Context:
    """The options before the command."""

    config: Path | None = None
    """The settings file, if one was named."""
    debug: bool = False
    """Whether to show where errors arise."""

    def settings(self, **overrides: object) -> "Settings":
        """The settings. Raises SettingsError."""
        from agentstream.infra.settings_file import load_settings

        given: Mapping[str, object] = {key: value for key, value in overrides.items() if value is not None}
        return load_settings(self.config, {**given, **({"log_level": "debug"} if self.debug else {})})

    def cluster(self, settings: "Settings") -> Cluster:
        """The cluster of the settings; where they name none, that of `agentstream dev`. Raises SettingsError."""
        from agentstream.infra.connection import kafka_connection
        from agentstream.schemas.topics import Topics

        dev = _dev(settings)
        if dev is None:
            connection = kafka_connection(settings.kafka)
            return Cluster(connection=connection, topics=Topics(prefix=settings.topic_prefix))
        connection = kafka_connection(settings.kafka, bootstrap_servers=dev.bootstrap_servers)
        return Cluster(connection=connection, topics=Topics(prefix=dev.settings.topic_prefix), is_dev=True)

    def at_dev(self, settings: "Settings") -> "Settings":
        """The settings, with the broker and the topics of `agentstream dev` where they name no broker."""
        dev = _dev(settings)
        if dev is None:
            return settings
        kafka = settings.kafka.model_copy(update={"bootstrap_servers": dev.bootstrap_servers})
        return settings.model_copy(update={"kafka": kafka, "topic_prefix": dev.settings.topic_prefix})

    def as_dev(self, settings: "Settings") -> tuple["Settings", str | None]:
        """For what describes a worker: the settings of `agentstream dev`, and a line that says so, as `at_dev`."""
        dev = _dev(settings)
        if dev is None:
            return settings, None
        kafka = settings.kafka.model_copy(update={"bootstrap_servers": dev.bootstrap_servers})
        note = f"as `agentstream dev` runs it (pid {dev.pid}), not by the settings of this terminal"
        return dev.settings.model_copy(update={"kafka": kafka}), note

    def quiet_logs(self, settings: "Settings") -> None:
        """For commands that talk to people: warnings of libraries only when they are asked for."""
        from agentstream.infra.cli.unreachable import listen_for_reasons
        from agentstream.infra.connection import redactor
        from agentstream.infra.logs import configure_logs

        configure_logs("debug" if self.debug else "critical", log_format="auto", redactor=redactor(settings))
        if not self.debug:
            listen_for_reasons()


def _dev(settings: "Settings") -> "DevState | None":
    """The `agentstream dev` to go to, where no broker is named, if one runs."""
    from agentstream.infra.dev_state import running_devs

    if settings.kafka.bootstrap_servers:
        return None
    running = running_devs()
    if len({dev.bootstrap_servers for dev in running}) > 1:
        _say_which(running[-1].bootstrap_servers, ", ".join(dev.bootstrap_servers for dev in running[:-1]))
    return running[-1] if running else None


@cache
def _say_which(taken: str, others: str) -> None:
    """Once in a command: which of several it goes to was a riddle."""
    from agentstream.infra.cli.screen import Screen

    line = f"several `agentstream dev` run: this goes to the latest, {taken}; KAFKA_BOOTSTRAP_SERVERS names another"
    Screen().note(f"{line} ({others})", "yellow")
