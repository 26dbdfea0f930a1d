"""What stdout does with characters that its encoding has not."""

import codecs
import io
import json
import sys

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
