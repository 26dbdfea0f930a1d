"""The tools that pip alone does not bring: Node, the Pi sidecar's packages, Kafka's jars.

In a checkout they live beside their sources (`infra/pi-sidecar/node_modules`, `infra/kafka/libs`, both ignored by git);
installed from a wheel they live in the user's cache, never in site-packages.
"""

from agentstream.infra.toolchain.find import NodeTools, ToolMissing, find_java, find_maven, find_node, state_dir
from agentstream.infra.toolchain.install import Progress, ensure_kafka_jars, ensure_pi_sidecar, kafka_jars, quiet

__all__ = [
    "NodeTools",
    "Progress",
    "ToolMissing",
    "ensure_kafka_jars",
    "ensure_pi_sidecar",
    "find_java",
    "find_maven",
    "find_node",
    "kafka_jars",
    "quiet",
    "state_dir",
]
