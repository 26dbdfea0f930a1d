"""Every name in our spans, and of the attributes of our measurements: one place, each group with its source.

The names are written out, not imported: the package opentelemetry-semantic-conventions moves the GenAI ones between
releases, and a dashboard breaks when a name does.
"""

from typing import Final

# https://github.com/open-telemetry/semantic-conventions/blob/v1.41.0/docs/messaging/messaging-spans.md
# https://github.com/open-telemetry/semantic-conventions/blob/v1.41.0/docs/messaging/kafka.md
MESSAGING_SYSTEM: Final = "messaging.system"
KAFKA: Final = "kafka"
OPERATION: Final = "messaging.operation.name"
OPERATION_TYPE: Final = "messaging.operation.type"
PROCESS: Final = "process"
SEND: Final = "send"
DESTINATION: Final = "messaging.destination.name"
PARTITION: Final = "messaging.destination.partition.id"
GROUP: Final = "messaging.consumer.group.name"
OFFSET: Final = "messaging.kafka.offset"
MESSAGE_ID: Final = "messaging.message.id"
BODY_SIZE: Final = "messaging.message.body.size"

# https://github.com/open-telemetry/semantic-conventions/blob/v1.41.0/docs/gen-ai/gen-ai-spans.md
# https://github.com/open-telemetry/semantic-conventions/blob/v1.41.0/docs/gen-ai/gen-ai-agent-spans.md
GEN_AI_OPERATION: Final = "gen_ai.operation.name"
INVOKE_AGENT: Final = "invoke_agent"
CHAT: Final = "chat"
EXECUTE_TOOL: Final = "execute_tool"
AGENT_NAME: Final = "gen_ai.agent.name"
CONVERSATION_ID: Final = "gen_ai.conversation.id"
PROVIDER: Final = "gen_ai.provider.name"
REQUEST_MODEL: Final = "gen_ai.request.model"
REQUEST_STREAM: Final = "gen_ai.request.stream"
RESPONSE_MODEL: Final = "gen_ai.response.model"
FINISH_REASONS: Final = "gen_ai.response.finish_reasons"
TIME_TO_FIRST_CHUNK: Final = "gen_ai.response.time_to_first_chunk"
"""Seconds."""
USAGE: Final = "gen_ai.usage."
INPUT_TOKENS: Final = "gen_ai.usage.input_tokens"
"""Cached ones included."""
OUTPUT_TOKENS: Final = "gen_ai.usage.output_tokens"
CACHE_READ_TOKENS: Final = "gen_ai.usage.cache_read.input_tokens"
CACHE_WRITE_TOKENS: Final = "gen_ai.usage.cache_creation.input_tokens"
REASONING_TOKENS: Final = "gen_ai.usage.reasoning.output_tokens"
TOKEN_TYPE: Final = "gen_ai.token.type"  # noqa: S105 - input or output
TOOL_NAME: Final = "gen_ai.tool.name"
TOOL_CALL_ID: Final = "gen_ai.tool.call.id"
TOOL_TYPE: Final = "gen_ai.tool.type"
FUNCTION: Final = "function"
TOOL_ARGUMENTS: Final = "gen_ai.tool.call.arguments"
TOOL_RESULT: Final = "gen_ai.tool.call.result"
INPUT_MESSAGES: Final = "gen_ai.input.messages"
OUTPUT_MESSAGES: Final = "gen_ai.output.messages"
PROVIDERS: Final = {
    "amazon-bedrock": "aws.bedrock",
    "azure-openai": "azure.ai.openai",
    "azure-openai-responses": "azure.ai.openai",
    "google": "gcp.gemini",
    "google-vertex": "gcp.vertex_ai",
    "mistral": "mistral_ai",
    "xai": "x_ai",
}
"""The conventions' well-known values where a provider of `provider/id` is called something else."""
OTHER: Final = "_OTHER"
"""The conventions' word for what is not known."""

# Pydantic AI's names for the sum over an agent's calls, https://pydantic.dev/docs/ai/integrations/logfire/; the
# conventions have none: https://github.com/open-telemetry/semantic-conventions-genai/issues/19
AGGREGATED_USAGE: Final = "gen_ai.aggregated_usage."
"""Stands for `gen_ai.usage.` where what is said of a call is summed."""
AGGREGATED_INPUT_TOKENS: Final = "gen_ai.aggregated_usage.input_tokens"
AGGREGATED_OUTPUT_TOKENS: Final = "gen_ai.aggregated_usage.output_tokens"

# The names before v1.27, which some backends still count by: only written if asked for.
PROMPT_TOKENS: Final = "gen_ai.usage.prompt_tokens"
COMPLETION_TOKENS: Final = "gen_ai.usage.completion_tokens"

# https://github.com/open-telemetry/semantic-conventions/blob/v1.41.0/docs/general/session.md and .../registry/error.md
SESSION_ID: Final = "session.id"
ERROR_TYPE: Final = "error.type"

# https://github.com/Arize-ai/openinference/blob/main/spec/semantic_conventions.md
SPAN_KIND: Final = "openinference.span.kind"
CHAIN: Final = "CHAIN"
AGENT: Final = "AGENT"
LLM: Final = "LLM"
TOOL: Final = "TOOL"
LLM_MODEL: Final = "llm.model_name"
LLM_PROMPT_TOKENS: Final = "llm.token_count.prompt"
LLM_COMPLETION_TOKENS: Final = "llm.token_count.completion"
LLM_TOTAL_TOKENS: Final = "llm.token_count.total"
LLM_TOOL_NAME: Final = "tool.name"
INPUT_VALUE: Final = "input.value"
OUTPUT_VALUE: Final = "output.value"

# Ours.
RUN_ID: Final = "agentstream.run.id"
RUN_STATUS: Final = "agentstream.run.status"
REQUEST: Final = "agentstream.request"
"""topic/partition/offset of the request."""
CLAIM: Final = "agentstream.claim"
ATTEMPT: Final = "agentstream.attempt"
ATTEMPT_ID: Final = "agentstream.attempt.id"
HARNESS: Final = "agentstream.harness"
TURN: Final = "agentstream.turn"
STRIKES: Final = "agentstream.strikes"
"""Attempts at the run that were lost with their workers before."""
LOST: Final = "agentstream.lost"
"""True on spans that another worker wrote, since theirs was lost."""
DUPLICATE: Final = "agentstream.duplicate"
ENDED_BY: Final = "agentstream.ended_by"
"""Why a request's processing ended here without an outcome."""
TRACE_TARGET: Final = "agentstream.trace_target"
"""Names the place that this span and those below it are exported to."""
COST: Final = "agentstream.cost.amount"
"""Decimal text."""
COST_CURRENCY: Final = "agentstream.cost.currency"
LINK: Final = "agentstream.link"
"""What a link points at: `request`, `retried_attempt` or `lost_attempt`."""

# Our events.
TURN_CAME: Final = "agentstream.turn_came"
FIRST_CHUNK: Final = "agentstream.first_chunk"
ATTEMPT_LOST: Final = "agentstream.attempt_lost"

# Values of error.type besides the codes of schemas/errors.
TOOL_ERROR: Final = "tool_error"
"""The tool ran, and said that it failed."""
NEVER_ENDED: Final = "never_ended"
"""What it is part of has ended, and its own end never came."""
WORKER_LOST: Final = "worker_lost"
PARTITION_LOST: Final = "partition_lost"
"""The partition went to another worker, which runs the request again."""
DRAINING: Final = "draining"
"""The worker stopped and gave the request back."""
