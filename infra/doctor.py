"""Looks at all that a worker stands on, one check after the other, and says for each what to do."""

import asyncio
import os
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, TypeVar
from urllib.parse import urlsplit

from aiokafka.errors import KafkaError

from agentstream.consumers.client.errors import in_words
from agentstream.consumers.harness.sidecar_link import SidecarUnavailable
from agentstream.infra.cli.unreachable import last_reason
from agentstream.infra.connection import named_credentials, redactor, trace_targets
from agentstream.infra.harnesses import PI, is_loopback, open_harnesses
from agentstream.infra.interface import Interface, read_interface
from agentstream.infra.settings import Settings
from agentstream.infra.settings_file import SettingsError, unknown_variables
from agentstream.infra.telemetry.environment import Destination, Signal, telemetry_settings
from agentstream.infra.telemetry.misread import refused
from agentstream.infra.toolchain import ToolMissing, find_node
from agentstream.infra.topic_admin import ClusterState, topic_admin
from agentstream.infra.topic_plan import plan_topics
from agentstream.infra.topics import TopicsError, every_topic
from agentstream.producers.connection import KafkaConnection
from agentstream.schemas.topics import Topics

if TYPE_CHECKING:
    from agentstream.infra.telemetry.probing import Probe

Verdict = Literal["ok", "warning", "broken"]
_PATIENCE_S = 60.0
Answer = TypeVar("Answer")


@dataclass(frozen=True, kw_only=True, slots=True)
class Check:
    """What was found about one thing."""

    name: str
    """The thing."""
    verdict: Verdict
    """ok; warning: works, but perhaps not as meant; broken: a worker cannot run."""
    found: str
    """What is there."""
    advice: str = ""
    """What to do."""


def _ok(name: str, found: str) -> Check:
    return Check(name=name, verdict="ok", found=found)


def _warning(name: str, found: str, advice: str) -> Check:
    return Check(name=name, verdict="warning", found=found, advice=advice)


def _broken(name: str, found: str, advice: str) -> Check:
    return Check(name=name, verdict="broken", found=found, advice=advice)


async def examine(settings: Settings, connect: Callable[[], tuple[KafkaConnection, Topics]]) -> AsyncIterator[Check]:
    """Yield the checks as they are done. Never raises for what is broken."""
    for check in _settings(settings):
        yield check
    try:
        connection, topics = connect()
    except SettingsError as error:
        yield _broken("broker", "none is configured", str(error))
    else:
        async for check in _cluster(settings, connection, topics):
            yield check
    for check in way_to_sidecar(settings):
        yield check
    async for check in _harnesses(settings):
        yield check
    for check in _agent(settings):
        yield check
    async for check in _telemetry(settings):
        yield check


def _settings(settings: Settings) -> list[Check]:
    unknown = unknown_variables(os.environ)
    if unknown:
        return [_warning("settings", f"no such settings: {', '.join(unknown)}", "Correct or unset them.")]
    return [_ok("settings", f"group {settings.group_id}, topics {settings.topic_prefix}*")]


async def _cluster(settings: Settings, connection: KafkaConnection, topics: Topics) -> AsyncIterator[Check]:
    where = connection.bootstrap_servers
    try:
        async with asyncio.timeout(_PATIENCE_S), topic_admin(connection) as admin:
            state = await _or_refusal(admin.state(every_topic(topics)))
            members = await _or_refusal(admin.members(settings.group_id))
    except (KafkaError, OSError, TimeoutError) as error:
        why = last_reason() or in_words(error)
        advice = "Check KAFKA_BOOTSTRAP_SERVERS and the KAFKA_* security settings."
        yield _broken("broker", f"{where} does not answer ({why})", advice)
        return
    if isinstance(state, TopicsError):
        yield _ok("broker", where)
        yield _broken("topics", str(state), "Give this user that right.")
    else:
        yield _ok("broker", f"{where}, {state.brokers} alive")
        yield _topics(settings, topics, state)
    if isinstance(members, TopicsError):
        yield _broken("workers", str(members), "Give this user that right.")
    elif members:
        yield _ok("workers", f"{len(members)} in group {settings.group_id}")
    else:
        yield _warning("workers", f"none in group {settings.group_id}", "Start one with `agentstream worker`.")


async def _or_refusal(asking: Awaitable[Answer]) -> Answer | TopicsError:
    """What is asked, or why it is not told: who may not see the group may well see the topics."""
    try:
        return await asking
    except TopicsError as error:
        return error


def _topics(settings: Settings, topics: Topics, state: ClusterState) -> Check:
    plan = plan_topics(topics, state.topics, brokers=state.brokers, max_request_bytes=settings.max_request_bytes)
    if topics.invoke_requests not in state.topics:
        return _broken("topics", f"{topics.invoke_requests} does not exist", "Run `agentstream topics apply`.")
    if plan.refusal is not None:
        return _broken("topics", plan.refusal, "Run `agentstream topics plan`.")
    if plan.steps:
        return _warning("topics", f"{len(plan.steps)} differences", "See `agentstream topics plan`.")
    return _ok("topics", f"{plan.partitions} partitions, all as it should be")


async def _harnesses(settings: Settings) -> AsyncIterator[Check]:
    if "pi" in settings.harnesses:
        try:
            node = await asyncio.to_thread(find_node)
            yield _ok("node", f"{'.'.join(map(str, node.version))} at {node.node}")
        except ToolMissing as error:
            yield _broken("node", error.what, error.how_to_get_it)
            return
    try:
        async with asyncio.timeout(_PATIENCE_S), open_harnesses(settings, redactor(settings)) as harnesses:
            for kind, harness in harnesses.items():
                problem = await harness.health()
                versions = ", ".join(f"{name} {version}" for name, version in harness.versions.items())
                if problem is None:
                    yield _ok(f"harness {kind}", versions)
                else:
                    yield _broken(f"harness {kind}", problem, "See the worker's log.")
    except SettingsError as error:
        yield _broken("harness", str(error), "Correct the settings.")
    except ToolMissing as error:
        yield _broken("harness", error.what, error.how_to_get_it)
    except (SidecarUnavailable, TimeoutError) as error:
        yield _no_sidecar(settings, str(error) or "did not start in time")


def _no_sidecar(settings: Settings, why: str) -> Check:
    if "pi" in settings.harnesses:
        return _broken("harness pi", why, "Run it with --debug to see its output.")
    return _broken("harness pi-http", why, "Start it with `agentstream sidecar`, or correct AGENTSTREAM_PI_HTTP_*.")


def way_to_sidecar(settings: Settings) -> list[Check]:
    """Requests to a sidecar carry the keys of providers."""
    url = urlsplit(settings.pi_http_url or "")
    if "pi-http" not in settings.harnesses or url.scheme == "https" or is_loopback(url.hostname or "localhost"):
        return []
    found = f"keys of providers travel unencrypted to {url.hostname}"
    return [_warning("way to the sidecar", found, "Put TLS before it and say https, or keep the network to itself.")]


def _agent(settings: Settings) -> list[Check]:
    try:
        interface = read_interface(settings)
    except SettingsError as error:
        return [_broken("credentials", str(error), "Correct the settings.")]
    return [_credentials(settings), _model(settings, interface), *_files(settings, interface)]


async def _telemetry(settings: Settings) -> AsyncIterator[Check]:
    from agentstream.infra.telemetry.probing import probe, probe_target  # loads the SDK

    otel = telemetry_settings()
    if otel.disabled:
        yield _ok("traces", "off, by OTEL_SDK_DISABLED")
        return
    for problem in (*otel.problems, *refused(os.environ)):
        yield _warning("telemetry", problem, "Correct or unset it.")
    signals: tuple[tuple[Signal, Destination], ...] = (("traces", otel.traces), ("metrics", otel.metrics))
    for signal, place in signals:
        if place.endpoint is not None:
            yield _probed(signal, await asyncio.to_thread(probe, signal, place.endpoint))
        elif not place.problem:
            yield _ok(signal, f"not exported: {place.off_because}")
    try:
        targets = trace_targets(settings)
    except SettingsError as error:
        yield _broken("trace targets", str(error), "Correct the settings.")
        return
    for name, target in targets.items():
        yield _probed(f"traces of {name}", await asyncio.to_thread(probe_target, target))


def _probed(name: str, probed: "Probe") -> Check:
    return _warning(name, probed.found, probed.advice) if probed.advice else _ok(name, probed.found)


def _credentials(settings: Settings) -> Check:
    names = ", ".join(f"{name} ({each.provider})" for name, each in named_credentials(settings).items())
    if names or not PI.intersection(settings.harnesses):
        return _ok("credentials", names or "none needed")
    return _warning(
        "credentials", "none", "Set OPENAI_API_KEY or ANTHROPIC_API_KEY, or add [credentials.NAME] to agentstream.toml."
    )


def _model(settings: Settings, interface: Interface) -> Check:
    model = interface.defaults.get("model")
    if not isinstance(model, str):
        if not PI.intersection(settings.harnesses):
            return _ok("model", "none needed")
        return _warning("model", "none by default", "Set AGENTSTREAM_MODEL=provider/id, or name it in every request.")
    provider = model.partition("/")[0]
    if any(each.provider == provider for each in interface.config.credentials.values()):
        return _ok("model", model)
    return _warning("model", f"{model}, but no credentials for {provider}", f"Add credentials for {provider}.")


def _files(settings: Settings, interface: Interface) -> list[Check]:
    if settings.agent_dir is None:
        return [_ok("agent files", "none (AGENTSTREAM_AGENT_DIR is not set)")]
    if not interface.findings:
        return [_ok("agent files", f"{settings.agent_dir}")]
    return [
        _warning(
            "agent files",
            f"{found.file}{f', {found.field}' if found.field else ''}: {found.problem}",
            f"Correct it in {settings.agent_dir}; until then {found.took_effect}.",
        )
        for found in interface.findings
    ]
