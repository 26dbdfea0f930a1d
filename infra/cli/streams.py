"""What stdout does with characters that its encoding has not, and what arguments may be."""

import codecs
import io
import json
import os
import sys
from collections.abc import Iterable

from agentstream.infra.cli.exits import USAGE, fail

_NAME = "agentstream-escaped"


def escape_what_cannot_be_encoded() -> None:
    r"""Let stdout and stderr write `\u00b7` for it, as JSON does: where a locale is not UTF-8, `show` ended with 70.

    Python's own `backslashreplace` writes `\xb7`, which is no JSON.
    """
    codecs.register_error(_NAME, _escaped)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors=_NAME)


def _escaped(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    return json.dumps(error.object[error.start : error.end])[1:-1], error.end


def refuse_what_is_no_text(arguments: Iterable[str]) -> None:
    """Fail for an argument whose bytes are no UTF-8, unless it names a file: those may be called anything.

    `--set metadata.x=…` sent other bytes than were typed, and `--continue` ended as a bug of ours.
    """
    for argument in arguments:
        try:
            argument.encode()
        except UnicodeEncodeError:
            raw = os.fsencode(argument)
            try:
                raw.decode()  # a locale that is not UTF-8: `said_as_argument` reads it
            except UnicodeDecodeError as error:
                if not any(map(os.path.lexists, (argument, argument.partition("=")[2]))):
                    shown = raw[max(0, error.start - 30) : error.start + 30].decode(errors="backslashreplace")
                    fail(f"the argument `{shown}` is not UTF-8 text (at byte {error.start})", USAGE)
