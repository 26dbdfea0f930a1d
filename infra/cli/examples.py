"""Examples in the help: each command ends its `--help` with lines that can be typed as they stand."""

from collections.abc import Mapping
from typing import Final

from typer.core import TyperGroup

from agentstream.infra.cli.exits import HELP

_AS_IT_STANDS: Final = "\b"
"""What keeps the lines of a paragraph of the help as they are."""

_LINES: Final[Mapping[str, tuple[str, ...]]] = {
    "": ("agentstream dev", "agentstream invoke 'Hello, who are you?'    # in another terminal"),
    "init": (
        "agentstream init my-agent",
        "agentstream init . --force",
    ),
    "dev": (
        "agentstream dev",
        "agentstream dev --tools bash,read --partitions 4",
        "AGENTSTREAM_AGENT_DIR=my-agent agentstream dev",
    ),
    "worker": ("KAFKA_BOOTSTRAP_SERVERS=broker-1:9092 AGENTSTREAM_MODEL=openai/gpt-5-mini agentstream worker",),
    "sidecar": (
        "agentstream sidecar",
        "AGENTSTREAM_PI_HTTP_TOKEN_FILE=/run/secrets/pi-token agentstream sidecar --host 0.0.0.0 --port 8790",
    ),
    "invoke": (
        "agentstream invoke 'Hello, who are you?'",
        "agentstream invoke --session s1 --set limits.max_turns=3 --agents-md AGENTS.md 'And now?'",
        "agentstream invoke --continue s1 'And in one word?'",
        "git diff | agentstream invoke --model openai/gpt-5-mini --json",
        "agentstream invoke --file requests.jsonl --output results.jsonl --concurrency 32",
    ),
    "chat": ("agentstream chat", "agentstream chat --continue SESSION --model openai/gpt-5-mini"),
    "cancel": ("agentstream cancel RUN_ID --reason 'not needed any more' --wait",),
    "where": ("agentstream where RUN_ID", "agentstream where RUN_ID --json --last 1000000"),
    "show": ("agentstream show RUN_ID", "agentstream show RUN_ID --json | jq .result.usage"),
    "tail": (
        "agentstream tail",
        "agentstream tail deltas --session s1",
        "agentstream tail results --status failed --since 2h --no-follow --json",
        "agentstream tail deltas --run RUN_ID",
    ),
    "trace": ("agentstream trace RUN_ID", "agentstream trace 4bf92f35 --dir /var/lib/agentstream/traces"),
    "topics": ("agentstream topics plan --partitions 12", "agentstream topics apply --partitions 12"),
    "topics plan": ("agentstream topics plan --partitions 12",),
    "topics apply": ("agentstream topics apply --partitions 12",),
    "inspect": ("agentstream inspect", "agentstream inspect --asyncapi > asyncapi.json"),
    "doctor": ("agentstream doctor", "agentstream doctor --json"),
    "capture": (
        "agentstream capture yesterday --since 1d",
        r"agentstream capture failures --status failed --session s1 --redact-pattern '[\w.]+@[\w.]+'",
    ),
    "recording": ("agentstream recording show yesterday",),
    "recording show": ("agentstream recording show yesterday --runs",),
    "replay": ("agentstream replay yesterday --out changed --mode hybrid --set 'tools=[\"read\"]'",),
    "compare": (
        "agentstream compare changed --recording yesterday --eval tools --fail-if 'pass_rate(tools) < baseline'",
    ),
    "shadow": ("agentstream shadow candidate --model openai/gpt-5-mini --sample 0.05 --max-cost 5",),
    "dead-letters": ("agentstream dead-letters list --since 2h", "agentstream dead-letters show 3/17"),
    "dead-letters list": ("agentstream dead-letters list --since 2h --code rate_limited",),
    "dead-letters show": ("agentstream dead-letters show 3/17",),
    "dead-letters export": ("agentstream dead-letters export --session s1 --output letters.jsonl",),
    "dead-letters redrive": (
        "agentstream dead-letters redrive --code rate_limited --dry-run",
        "agentstream dead-letters redrive --code rate_limited",
    ),
}


def examples(command: str) -> str:
    """What stands below the options of a command: its examples, then the exit codes."""
    lines = _LINES[command]
    title = "Example:" if len(lines) == 1 else "Examples:"
    return "\n".join((_AS_IT_STANDS, title, *(f"  {line}" for line in lines), "", HELP))


class InOrder(TyperGroup):
    """Lists commands in the order of their examples, which is that in which one meets them, and others behind them."""

    def list_commands(self, ctx: object) -> list[str]:
        """Their names."""
        known = [name for name in _LINES if name in self.commands]
        return known + [name for name in self.commands if name not in known]
