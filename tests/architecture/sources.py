"""What the architecture tests look at: the tracked files, and each module with what it imports."""

import ast
import subprocess
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("schemas", "producers", "consumers", "infra")
"""In the order in which they may be imported: each one only by those that follow."""


@dataclass(frozen=True)
class Module:
    """One Python file of the four packages."""

    path: str
    """Its path from the root of the repository, such as `schemas/codec.py`."""
    text: str
    """Its source."""

    @property
    def package(self) -> str:
        """The one of the four packages that it is in."""
        return self.path.split("/", 1)[0]

    @property
    def name(self) -> str:
        """The name it is imported by."""
        return "agentstream." + self.path.removesuffix(".py").removesuffix("/__init__").replace("/", ".")

    @cached_property
    def tree(self) -> ast.Module:
        """Its syntax tree."""
        return ast.parse(self.text, self.path)

    @property
    def imports(self) -> frozenset[str]:
        """Every name it imports anywhere, inside functions too: `a.b.c` for `from a.b import c`."""
        return frozenset(_imported(ast.walk(self.tree)))

    @property
    def imports_at_once(self) -> frozenset[str]:
        """The names it imports when it is loaded: not those inside functions or under TYPE_CHECKING."""
        return frozenset(_imported(_loaded(self.tree.body)))


def modules() -> list[Module]:
    """Return every module of the four packages, committed or about to be."""
    return [
        Module(path=path, text=(ROOT / path).read_text())
        for path in tracked_files()
        if path.endswith(".py") and path.split("/", 1)[0] in PACKAGES
    ]


def tracked_files() -> list[str]:
    """Return the paths of all files that git has or would add."""
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    return sorted({path for path in listed.split("\0") if path and (ROOT / path).is_file()})


def _imported(nodes: Iterator[ast.AST]) -> Iterator[str]:
    for node in nodes:
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = "." * node.level + (node.module or "")
            yield from (f"{base}.{alias.name}" for alias in node.names)


def _loaded(body: Sequence[ast.stmt]) -> Iterator[ast.AST]:
    for node in body:
        yield node
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            yield from _loaded(node.orelse)
        elif not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            for name in ("body", "orelse", "finalbody"):
                yield from _loaded(getattr(node, name, []))
