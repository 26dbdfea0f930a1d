"""The rules that a module can break; each returns its breaches as sentences, so that they can be tested themselves."""

import ast
from collections.abc import Iterator, Mapping, Sequence
from graphlib import CycleError, TopologicalSorter

from tests.architecture.sources import PACKAGES, Module

MAX_LINES = 300

ONLY_IN: Mapping[str, str] = {
    "aiokafka.AIOKafkaConsumer": "consumers/kafka.py",
    "aiokafka.AIOKafkaProducer": "producers/kafka.py",
    "opentelemetry.sdk": "infra/telemetry/",
    "opentelemetry.exporter": "infra/telemetry/",
}
"""What one file, or one directory, alone may import."""

ONLY_IN_INFRA = ("os.environ", "os.environb", "os.getenv", "os.getenvb", "os.putenv", "dotenv", "pydantic_settings")
"""What reads the environment or settings."""

_NAMES_WITH_NEW_HOMES = {"aiokafka.consumer": "aiokafka", "aiokafka.producer": "aiokafka"}


def breaches_of_direction(module: Module) -> Iterator[str]:
    """Imports point one way: schemas, producers, consumers, infra."""
    allowed = PACKAGES[: PACKAGES.index(module.package) + 1]
    for name in sorted(module.imports):
        first, _, rest = name.partition(".")
        if first in PACKAGES:
            yield f"{module.path} imports the bare name {name}: say agentstream.{name}"
        elif first == "":
            yield f"{module.path} imports {name} relatively: say agentstream.…"
        elif first == "agentstream" and rest.split(".")[0] in PACKAGES and rest.split(".")[0] not in allowed:
            yield f"{module.path} imports {name}, which stands above it"
        elif name == "agentstream" or (first == "agentstream" and rest.split(".")[0] not in PACKAGES):
            yield f"{module.path} imports {name} from the facade, which is for callers"


def breaches_of_one_home(module: Module) -> Iterator[str]:
    """Kafka's two classes and the telemetry SDK have one home each; infra alone reads the environment."""
    for name in sorted(module.imports | _attributes(module.tree)):
        known = _with_known_home(name)
        for owned, home in ONLY_IN.items():
            at_home = module.path.startswith(home) if home.endswith("/") else module.path == home
            if _is_within(known, owned) and not at_home:
                yield f"{module.path} uses {name}: only {home} may"
        if module.package != "infra" and any(_is_within(name, reader) for reader in ONLY_IN_INFRA):
            yield f"{module.path} uses {name}: only infra reads the environment and settings"


def breaches_of_size(module: Module) -> Iterator[str]:
    """A file that needs scrolling for minutes is two files."""
    lines = module.text.count("\n")
    if lines > MAX_LINES:
        yield f"{module.path} has {lines} lines, more than {MAX_LINES}: split it"


def import_cycle(modules: Sequence[Module]) -> list[str]:
    """Return the names of modules that import each other in a circle when they are loaded, or nothing."""
    names = {module.name for module in modules}
    graph = {
        module.name: {_owner(name, names) for name in module.imports_at_once} - {"", module.name} for module in modules
    }
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        return list(error.args[1])
    return []


def _owner(imported: str, names: set[str]) -> str:
    """Return the module that an imported name is or comes from, if it is one of ours."""
    if imported in names:
        return imported
    parent = imported.rpartition(".")[0]
    return parent if parent in names else ""


def _attributes(tree: ast.Module) -> frozenset[str]:
    """Return every dotted name that the code uses, such as `os.environ` or `aiokafka.AIOKafkaConsumer`."""
    return frozenset(
        ast.unparse(node) for node in ast.walk(tree) if isinstance(node, ast.Attribute) and _is_dotted(node)
    )


def _is_dotted(node: ast.expr) -> bool:
    return isinstance(node, ast.Name) or (isinstance(node, ast.Attribute) and _is_dotted(node.value))


def _with_known_home(name: str) -> str:
    """Return aiokafka's classes by their short name, wherever they were imported from."""
    for old, new in _NAMES_WITH_NEW_HOMES.items():
        if _is_within(name, old):
            return f"{new}.{name.rpartition('.')[2]}"
    return name


def _is_within(name: str, owner: str) -> bool:
    return name == owner or name.startswith(owner + ".")
