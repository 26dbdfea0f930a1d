"""`python -m agentstream.schemas.export [--check]`: writes everything that is generated from the models.

    schemas/generated/<model>.json   JSON Schema per wire model
    schemas/generated/asyncapi.json  the whole interface
    docs/errors.md, docs/events.md   tables

`--check` writes nothing and exits 1 if a file is out of date. A command for developers: it needs the repository.
"""

import json
import sys
from collections.abc import Sequence
from pathlib import Path

from agentstream.schemas.asyncapi import asyncapi
from agentstream.schemas.json_schema import json_schemas
from agentstream.schemas.tables import errors_page, events_page

REPOSITORY = Path(__file__).resolve().parent.parent


def generated() -> dict[str, str]:
    """Contents of every generated file, by its path in the repository."""
    documents = {**json_schemas(), "asyncapi": asyncapi()}
    files = {
        f"schemas/generated/{name}.json": json.dumps(document, indent=2, ensure_ascii=False) + "\n"
        for name, document in documents.items()
    }
    return files | {"docs/errors.md": errors_page(), "docs/events.md": events_page()}


def stale(root: Path = REPOSITORY) -> list[str]:
    """Generated files that are missing or not what the models say now."""
    return [
        name
        for name, text in generated().items()
        if not (root / name).is_file() or (root / name).read_text(encoding="utf-8") != text
    ]


def main(arguments: Sequence[str]) -> int:
    """Write or check; exit code 0, 1 if something is out of date, 2 where there is no repository."""
    if not (REPOSITORY / "pyproject.toml").is_file():
        sys.stderr.write("Run this in a clone of the repository: an installed package has nothing to write.\n")
        return 2
    outdated = stale()
    if "--check" in arguments:
        for name in outdated:
            sys.stderr.write(f"{name} is out of date: run python -m agentstream.schemas.export\n")
        return 1 if outdated else 0
    for name in outdated:
        path = REPOSITORY / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(generated()[name], encoding="utf-8")
        sys.stdout.write(f"{name}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
