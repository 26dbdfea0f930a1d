"""The files that `agentstream init` writes: an agent's instructions, its parameters, and Kafka and a worker for it."""

import json
from collections.abc import Mapping
from typing import Final

from agentstream.consumers.agent_files import AGENT_JSON, AGENTS_MD
from agentstream.infra.broker.port import KAFKA_VERSION
from agentstream.schemas.topics import DEFAULT_PREFIX

COMPOSE: Final = "compose.yaml"
PACKAGE: Final = "agentstream-kafka"

_INSTRUCTIONS: Final = """\
# Instructions

<!-- All of this file is given to the model with every request that brings no instructions of its own (`agents_md`).
     Workers read it once, when they start: restart them after a change. Replace what stands here. -->

You are a careful assistant. Answer in the language of the question.

- Say what you do not know instead of guessing.
- Prefer a short answer; give details when you are asked for them.
- With tools: look before you change anything, and say what you changed.
"""

_PARAMETERS: Final = {
    "$comment": [
        "What requests run with where they say nothing. JSON has no comments: this field is for you, workers skip it.",
        "name: the agent's name in traces.",
        "tools: bash, read, write, edit, grep, find, ls, …; the worker must allow them, too: AGENTSTREAM_TOOLS=read,ls",
        "limits: bounds of a run, which can only lower those of the worker's settings; the README has them all.",
        "thinking: off, minimal, low, medium, high, xhigh. stream: full, events (no words as they come), none.",
        "Not set here: model (provider/id; absent: AGENTSTREAM_MODEL), harness ({'kind': 'pi'}), retry, credentials.",
        "`agentstream inspect` shows what takes effect, `agentstream doctor` what in this file cannot be used.",
    ],
    "tools": [],
    "limits": {"max_turns": 20, "total_ms": 600_000},
    "thinking": "off",
    "stream": "full",
}

_COMPOSE: Final = """\
# Kafka, its topics and a worker for the agent in this directory.
#
#   docker compose up --build                # then, in another terminal, against localhost:9092:
#   KAFKA_BOOTSTRAP_SERVERS=localhost:9092 agentstream invoke 'Hello, who are you?'
#
# One broker without replicas: for trying things out, not for production.

x-agentstream: &agentstream
  build:
    args:
      # What pip installs: the distribution's name, or a wheel that lies in this directory (./{module}-….whl).
      PACKAGE: ${{AGENTSTREAM_PACKAGE:-{package}}}
    context: .
    dockerfile_inline: |
      FROM python:3.12-slim
      WORKDIR /agent
      ARG PACKAGE
      RUN --mount=type=bind,target=/agent pip install --no-cache-dir "$PACKAGE"
  environment: &environment
    KAFKA_BOOTSTRAP_SERVERS: kafka:9094
    AGENTSTREAM_TOPIC_PREFIX: {prefix}

services:
  kafka:
    image: apache/kafka:{kafka}
    ports: ["9092:9092"] # for clients on this machine; containers use kafka:9094
    environment:
      KAFKA_NODE_ID: 1
      KAFKA_PROCESS_ROLES: broker,controller
      KAFKA_CONTROLLER_QUORUM_VOTERS: 1@kafka:9093
      KAFKA_CONTROLLER_LISTENER_NAMES: CONTROLLER
      KAFKA_INTER_BROKER_LISTENER_NAME: INTERNAL
      KAFKA_LISTENERS: PLAINTEXT://:9092,CONTROLLER://:9093,INTERNAL://:9094
      KAFKA_ADVERTISED_LISTENERS: PLAINTEXT://localhost:9092,INTERNAL://kafka:9094
      KAFKA_LISTENER_SECURITY_PROTOCOL_MAP: PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT,INTERNAL:PLAINTEXT
      # One broker: there is nobody to hold a second copy.
      KAFKA_OFFSETS_TOPIC_REPLICATION_FACTOR: 1
      KAFKA_TRANSACTION_STATE_LOG_REPLICATION_FACTOR: 1
      KAFKA_TRANSACTION_STATE_LOG_MIN_ISR: 1
      KAFKA_SHARE_COORDINATOR_STATE_TOPIC_REPLICATION_FACTOR: 1
      KAFKA_SHARE_COORDINATOR_STATE_TOPIC_MIN_ISR: 1
      KAFKA_GROUP_INITIAL_REBALANCE_DELAY_MS: 0
      # Topics are made by `agentstream topics apply`; a slip in a name must not make one.
      KAFKA_AUTO_CREATE_TOPICS_ENABLE: "false"
      KAFKA_LOG_DIRS: /var/lib/kafka/data
    volumes: ["kafka:/var/lib/kafka/data"]
    healthcheck:
      test: ["CMD", "/opt/kafka/bin/kafka-topics.sh", "--bootstrap-server", "kafka:9094", "--list"]
      interval: 5s
      timeout: 20s
      retries: 12

  topics: # makes what is missing and ends; safe to repeat
    <<: *agentstream
    command: agentstream topics apply --partitions 12
    depends_on:
      kafka: {{condition: service_healthy}}

  worker: # as many as you like: docker compose up --scale worker=3
    <<: *agentstream
    command: agentstream worker
    environment:
      <<: *environment
      AGENTSTREAM_AGENT_DIR: /agent
      # A model and its key; requests name credentials, they never carry any.
      AGENTSTREAM_MODEL: ${{AGENTSTREAM_MODEL:-openai/gpt-5-mini}}
      OPENAI_API_KEY: ${{OPENAI_API_KEY:-}}
      ANTHROPIC_API_KEY: ${{ANTHROPIC_API_KEY:-}}
      # AGENTSTREAM_TOOLS: bash,read # a tool can do what the worker can: see "Try it" in the README
    volumes:
      - .:/agent:ro # AGENTS.md and agent.json, read at start
      - cache:/root/.cache/agentstream # what the worker fetches the first time it starts
    depends_on:
      topics: {{condition: service_completed_successfully}}
    stop_grace_period: 30s # started runs may go on for 20 s after SIGTERM
    restart: unless-stopped

volumes:
  kafka:
  cache:
"""


def new_files(name: str) -> Mapping[str, str]:
    """Their texts by their names. `name`: what the agent is called."""
    called = {"name": name, **{key: value for key, value in _PARAMETERS.items() if key != "$comment"}}
    parameters = {"$comment": _PARAMETERS["$comment"], **called}
    compose = _COMPOSE.format(
        kafka=KAFKA_VERSION, package=PACKAGE, module=PACKAGE.replace("-", "_"), prefix=DEFAULT_PREFIX
    )
    return {
        AGENTS_MD: _INSTRUCTIONS,
        AGENT_JSON: json.dumps(parameters, indent=2, ensure_ascii=False) + "\n",
        COMPOSE: compose,
    }
