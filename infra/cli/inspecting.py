"""`agentstream inspect`."""

import json

from agentstream.infra.cli.context import Context
from agentstream.infra.cli.screen import Screen
from agentstream.infra.interface import Interface, read_interface


def show_interface(context: Context, *, as_json: bool, asyncapi: bool) -> None:
    """Print the interface: a summary for people, everything with `--json`, one document with `--asyncapi`."""
    settings, note = context.as_dev(context.settings())
    interface = read_interface(settings)
    screen = Screen()
    if note is not None:
        screen.note(note)
    if asyncapi:
        screen.json(interface.asyncapi(), pretty=True)
    elif as_json:
        screen.json(interface.document(), pretty=True)
    else:
        _show(interface, screen)


def _show(interface: Interface, screen: Screen) -> None:
    config, topics = interface.config, interface.topics
    rows = [
        ("requests go to", topics.invoke_requests),
        ("deltas come on", topics.stream_deltas),
        ("results come on", topics.assistant_messages),
        ("dead letters on", topics.dead_letters),
        ("harnesses", ", ".join(config.harnesses)),
        ("tools allowed", ", ".join(sorted(config.tools)) or "none"),
        ("credentials", ", ".join(sorted(config.credentials)) or "none"),
    ]
    rows += [(f"default {name}", _text(value)) for name, value in interface.defaults.items()]
    screen.table(("", ""), rows)
    for found in interface.findings:
        screen.note(f"{found.file} {found.field or ''}: {found.problem}; {found.took_effect}", "yellow")
    screen.note("--json has the schemas as well, --asyncapi the whole interface as one document.")


def _text(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
