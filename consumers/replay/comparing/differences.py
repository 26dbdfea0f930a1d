"""What changed between two texts, word by word, as HTML."""

import re
from difflib import SequenceMatcher
from html import escape

_WORDS = re.compile(r"\s+|\w+|[^\w\s]")
_MOST_WORDS = 3_000
"""Of both texts together: SequenceMatcher takes 1 s for two of 5,000 that have little in common."""


def word_diff(before: str, after: str) -> tuple[str, str]:
    """Both texts, escaped, with `<del>` around what went and `<ins>` around what came; unmarked where too long."""
    was, now = _WORDS.findall(before), _WORDS.findall(after)
    if before == after or len(was) + len(now) > _MOST_WORDS:
        return escape(before), escape(after)
    left: list[str] = []
    right: list[str] = []
    for tag, i, j, k, m in SequenceMatcher(None, was, now, autojunk=False).get_opcodes():
        gone, come = escape("".join(was[i:j])), escape("".join(now[k:m]))
        left.append(gone if tag == "equal" or not gone else f"<del>{gone}</del>")
        right.append(come if tag == "equal" or not come else f"<ins>{come}</ins>")
    return "".join(left), "".join(right)
