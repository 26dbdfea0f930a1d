"""What is known before the first run of a replay: tools that would run, models that cannot be asked, vain changes."""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

from agentstream.consumers.agent_config import WorkerAgentConfig, credentials_for, default_tools
from agentstream.consumers.harness.scripted import ScriptedHarness
from agentstream.consumers.replay.playing import Budget, ReplayTerms, Tape
from agentstream.consumers.replay.playing.harness import PLAYED, READING
from agentstream.consumers.replay.playing.preparing import replayed_parameters
from agentstream.consumers.replay.recording.files import RecordingReader
from agentstream.consumers.replay.words import counted
from agentstream.infra.cli.exits import USAGE, fail
from agentstream.infra.compose import agent_config
from agentstream.infra.settings import Settings

Note = Callable[[str], None]


@dataclass(kw_only=True, slots=True)
class Needs:
    """What the runs of a recording ask for, as they would be played."""

    tools: Counter[str] = field(default_factory=Counter)
    """Every tool, with the number of runs that ask for it."""
    acting: Counter[str] = field(default_factory=Counter)
    """Of them, those that really run: their harness does not just play them."""
    beyond: int = 0
    """Runs with a tool that the settings do not allow: a live replay refuses them."""
    models: Counter[tuple[str | None, str | None]] = field(default_factory=Counter)
    """Model and the name of credentials, of the runs whose harness asks a model."""
    harnesses: Counter[str] = field(default_factory=Counter)
    """Every harness, with the number of runs that ask for it."""
    unplayable: Counter[str] = field(default_factory=Counter)
    """Why runs have nothing that a frozen replay could play."""


def config_without_harnesses(settings: Settings) -> WorkerAgentConfig:
    """What runs fall back to. Its one harness stands for none: whoever opens Pi only to ask for tools waits 0.7 s."""
    return agent_config(settings, {"scripted": ScriptedHarness()})


def needs_of(recording: RecordingReader, terms: ReplayTerms, settings: Settings) -> Needs:
    """What all runs of the recording need."""
    config = config_without_harnesses(settings)
    files, needs = config.files.parameters, Needs()
    default = settings.harnesses[0] if files.harness is None else files.harness.kind
    for run in recording:
        asked = replayed_parameters(run, terms)
        tools = default_tools(config) if asked.tools is None else tuple(dict.fromkeys(asked.tools))
        needs.tools.update(tools)
        needs.beyond += any(tool not in config.tools for tool in tools)
        if terms.mode == "frozen" and (why := Tape.of(run).unplayable) is not None:
            needs.unplayable[why] += 1
        kind = default if asked.harness is None else asked.harness.kind
        needs.harnesses[kind] += 1
        if kind not in PLAYED:
            needs.acting.update(tools)
            needs.models[asked.model or files.model or config.default_model, asked.credentials] += 1
    return needs


def check_tools(
    needs: Needs, terms: ReplayTerms, settings: Settings, *, runs: int, own_worker: bool, note: Note
) -> None:
    """Refuse a live replay whose tools would do more than read, unless they are named; say which ones really run."""
    if terms.mode != "live":
        return
    # What a fleet allows is not known here; it may be anything.
    running = [name for name in sorted(needs.acting) if not own_worker or name in settings.tools]
    refused = [name for name in running if name not in READING and name not in terms.real_tools]
    if refused:
        names = ",".join(dict.fromkeys([*terms.real_tools, *refused]))
        fail(
            f"{', '.join(refused)} would really run, and may do more than read: --real-tools {names} allows it, "
            "--mode hybrid answers tools from the recording",
            USAGE,
        )
    if running:
        note(f"tools that really run: {', '.join(running)}")
    if needs.beyond and own_worker:
        unknown = sorted(set(needs.tools) - set(settings.tools))
        named = ", ".join(f"{name} ({counted(needs.tools[name], 'run')})" for name in unknown)
        if needs.beyond == runs:
            fail(
                f"no run could be played: AGENTSTREAM_TOOLS does not allow {named}; "
                "--mode hybrid answers tools from the recording",
                USAGE,
            )
        note(f"AGENTSTREAM_TOOLS does not allow {named}: these runs end as tool_not_allowed")


def check_harnesses(needs: Needs, settings: Settings, *, runs: int, note: Note) -> None:
    """Refuse a replay of which no run has its harness here; say how many have not."""
    lacking = Counter({kind: count for kind, count in needs.harnesses.items() if kind not in settings.harnesses})
    named = ", ".join(f"{kind} ({counted(count, 'run')})" for kind, count in sorted(lacking.items()))
    if lacking.total() == runs:
        fail(f"no run could be played: AGENTSTREAM_HARNESSES does not allow {named}; --harness plays all by one", USAGE)
    if lacking:
        note(f"AGENTSTREAM_HARNESSES does not allow {named}: these runs end as harness_not_allowed")


def check_models(needs: Needs, settings: Settings, budget: Budget, *, runs: int, note: Note) -> None:
    """Refuse a replay of which no run can ask its model, or a bound on money that cannot hold."""
    config = config_without_harnesses(settings)
    lacking: Counter[str] = Counter()
    priced = 0
    for (model, name), count in needs.models.items():
        credentials, _ = credentials_for(name, model, config)
        if credentials is None:
            lacking[f"credentials named {name}" if name else f"credentials for {model}"] += count
        elif credentials.base_url is None or (credentials.input_price and credentials.output_price):
            priced += count
    total = needs.models.total()
    missing = " and ".join(lacking)
    if total and lacking.total() == total:
        fail(
            f"no run could ask its model: there are no {missing} here; set OPENAI_API_KEY or ANTHROPIC_API_KEY, "
            "write [credentials.NAME] into the settings file, or choose another --model",
            USAGE,
        )
    if lacking:
        # Of all: some ask no model, and a number of those that do is found nowhere else.
        note(f"{lacking.total():,} of {counted(runs, 'run')} will fail: there are no {missing} here")
    if budget.max_cost is not None and not priced:
        fail(
            "--max-cost cannot hold: nobody knows what these runs cost; give the credentials input_price and "
            "output_price, or use --limit or --max-tokens",
            USAGE,
        )


def check_tapes(needs: Needs, runs: int, terms: ReplayTerms, note: Note) -> None:
    """Refuse a frozen replay of which no run could be played; say where a change shows nothing."""
    if terms.mode == "frozen" and terms.changes.agents_md is not None:
        note("--agents-md shows nothing in a frozen replay: models answer from the recording, whatever they are told")
    if needs.unplayable.total() == runs:
        why = "; ".join(needs.unplayable)
        fail(f"no run can be played frozen: {why}; --mode hybrid or live asks the model", USAGE)
    for why, count in needs.unplayable.items():
        note(f"{counted(count, 'run')} cannot be played frozen, and will fail as unsupported: {why}")


def check_changes(terms: ReplayTerms) -> None:
    """Refuse changes that a frozen replay could not show."""
    changes = terms.changes
    given = {"--model": changes.model, "thinking": changes.thinking, "credentials": changes.credentials}
    vain = [name for name, value in given.items() if value is not None]
    if terms.mode == "frozen" and vain:
        fail(
            f"{' and '.join(vain)}: no effect in a frozen replay, where models answer from the recording; "
            "--mode hybrid asks the model",
            USAGE,
        )
