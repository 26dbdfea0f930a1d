"""How large a JSON value may be."""

from dataclasses import dataclass

from agentstream.schemas.topics import MAX_REQUEST_BYTES

Json = dict[str, object]


@dataclass(frozen=True, kw_only=True, slots=True)
class Bounds:
    """How large a value may be."""

    max_bytes: int = MAX_REQUEST_BYTES
    """Bytes, checked before anything is parsed: a zstd batch of 9.7 kB was seen to expand to 300 MiB."""
    max_depth: int = 64
    """Arrays and objects inside each other. Python's parser gives up near 1,000, pydantic at 200."""
    max_nodes: int = 100_000
    """Values of all kinds: 10,000 messages in long form have 70,000; each takes some 100 bytes of memory."""
    max_number_chars: int = 64
    """Digits of one number: a double needs 24, a UUID as a number 39; int() takes time by the square of them."""
    max_string_chars: int = 1_048_576
    """Characters of one string."""
    max_name_chars: int = 1_024
    """Characters of one field's name."""


DEFAULT_BOUNDS = Bounds()
