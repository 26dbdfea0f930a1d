"""Which broker there is to be had: the one in KAFKA_BOOTSTRAP_SERVERS, Docker's, or Maven's."""

import os
import shutil

from agentstream.infra.broker.docker import DockerBroker, docker_is_usable, ensure_image
from agentstream.infra.broker.external import ExternalBroker
from agentstream.infra.broker.maven import MavenBroker
from agentstream.infra.broker.port import BrokerOptions, LocalBroker
from agentstream.infra.toolchain import Progress, ToolMissing, ensure_kafka_jars, find_java, kafka_jars, quiet


def find_broker(options: BrokerOptions | None = None, *, own: bool = False, progress: Progress = quiet) -> LocalBroker:
    """Return a broker, not yet started. `own=True` wants one that may be killed, so never KAFKA_BOOTSTRAP_SERVERS.

    AGENTSTREAM_BROKER=docker|maven chooses one. Raises ToolMissing, with the ways out, where there is none.
    """
    options = options or BrokerOptions()
    bootstrap = os.environ.get("KAFKA_BOOTSTRAP_SERVERS")
    if bootstrap and not own:
        return ExternalBroker(bootstrap)
    if _kind() == "docker":
        return DockerBroker(options)
    return MavenBroker(options, progress=progress)


def ensure_broker(progress: Progress = quiet) -> None:
    """Make sure that `find_broker` will have one, fetching image or jars if need be; raise ToolMissing otherwise."""
    if os.environ.get("KAFKA_BOOTSTRAP_SERVERS"):
        return
    if _kind() == "docker":
        ensure_image(progress)
    else:
        ensure_kafka_jars(progress)


def _kind() -> str:
    """Return `docker` or `maven`, whichever comes first and works; raise ToolMissing if neither does."""
    chosen = os.environ.get("AGENTSTREAM_BROKER", "")
    if chosen == "docker" and not docker_is_usable():
        raise ToolMissing(
            "AGENTSTREAM_BROKER is docker, and no Docker engine answers", "Start one, or set it to maven, or unset it."
        )
    if chosen in {"docker", "maven"}:
        return chosen
    if chosen:
        raise ToolMissing(
            f"AGENTSTREAM_BROKER is {chosen!r}", "It can be docker or maven; unset, the first that works."
        )
    if docker_is_usable():
        return "docker"
    docker, java, maven = shutil.which("docker"), _has_java(), shutil.which("mvn")
    if java and (maven or kafka_jars() is not None):
        return "maven"
    raise ToolMissing(
        "No Kafka broker is to be had",
        "One of these is needed:\n"
        f"  - a Docker engine that runs ({'a client is here, but no engine answers' if docker else 'not found'});\n"
        f"  - Java 17 or newer ({'found' if java else 'not found'}) and Maven ({'found' if maven else 'not found'}).\n"
        "    Debian and Ubuntu: apt-get install openjdk-17-jre-headless maven; macOS: brew install openjdk maven;\n"
        "  - a broker of yours: KAFKA_BOOTSTRAP_SERVERS=host:port.",
    )


def _has_java() -> bool:
    try:
        find_java()
    except ToolMissing:
        return False
    return True
