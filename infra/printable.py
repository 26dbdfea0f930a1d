"""Texts that others chose, as a terminal or a line of a table can be given them."""

import re

_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")


def printable(text: str) -> str:
    """Without control characters: what an agent or a caller says must not drive the terminal."""
    return _CONTROL.sub("", text)


def one_line(text: str) -> str:
    """The same on one line, without tabs: it may be a cell of a table."""
    return printable(" ".join(text.split()))


def escaped(text: str) -> str:
    """With control characters written out, such as `\\x1b`: for a record whose fault may be just these."""
    return _CONTROL.sub(lambda found: f"\\x{ord(found[0]):02x}", text)
