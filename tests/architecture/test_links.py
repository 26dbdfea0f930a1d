import re
from collections import Counter
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from urllib.parse import unquote

import pytest
from markdown_it import MarkdownIt
from markdown_it.token import Token

from tests.architecture.sources import ROOT, tracked_files

PAGES = [path for path in tracked_files() if path.endswith(".md")]


def tokens(text: str) -> Iterator[Token]:
    for token in MarkdownIt("commonmark", {"html": True}).enable("table").parse(text):
        yield token
        yield from token.children or []


def anchors(text: str) -> set[str]:
    """Return the anchors that a page's headings get, by the rules of the common Markdown hosts."""
    found: set[str] = set()
    seen: Counter[str] = Counter()
    parsed = list(tokens(text))
    for heading, inline in pairwise(parsed):
        if heading.type == "heading_open":
            words = "".join(child.content for child in inline.children or [] if child.type in {"text", "code_inline"})
            slug = re.sub(r"[^\w\- ]", "", words.lower()).replace(" ", "-")
            found.add(f"{slug}-{seen[slug]}" if seen[slug] else slug)
            seen[slug] += 1
    return found | set(re.findall(r'<a (?:name|id)="([^"]+)"', text))


def broken_links(page: Path) -> Iterator[str]:
    for token in tokens(page.read_text()):
        target = str(token.attrGet("href") or token.attrGet("src") or "")
        if not target or re.match(r"[a-z+]+:", target):
            continue
        name, _, anchor = unquote(target).partition("#")
        file = page if not name else page.parent / name
        if not file.exists():
            yield f"{page.name}: {target} leads to no file"
        elif anchor and file.suffix == ".md" and anchor not in anchors(file.read_text()):
            yield f"{page.name}: {target} leads to no heading"


@pytest.mark.parametrize("path", PAGES)
def test_every_relative_link_leads_somewhere(path: str) -> None:
    assert list(broken_links(ROOT / path)) == []


def test_a_broken_link_is_noticed(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(
        "# A `b`: c\n\n[ok](#a-b-c) [web](https://example.com/x) [file](gone.md) [anchor](#nowhere)\n\n`[no](x)`\n"
    )
    assert list(broken_links(page)) == [
        "page.md: gone.md leads to no file",
        "page.md: #nowhere leads to no heading",
    ]
