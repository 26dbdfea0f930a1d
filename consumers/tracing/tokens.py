"""What was used, as spans say it."""

from collections.abc import Collection
from typing import Final

from opentelemetry.util.types import AttributeValue

from agentstream.schemas import span_names as names
from agentstream.schemas.messages import Usage

AGGREGATED: Final = {
    name: names.AGGREGATED_USAGE + name.removeprefix(names.USAGE)
    for name in (
        names.INPUT_TOKENS,
        names.OUTPUT_TOKENS,
        names.CACHE_READ_TOKENS,
        names.CACHE_WRITE_TOKENS,
        names.REASONING_TOKENS,
    )
}
"""By a sum's name what it is called where it is one of many spans."""


def tokens(usages: Collection[Usage]) -> dict[str, AttributeValue]:
    """The sums; none for no usage."""
    if not usages:
        return {}
    # In one loop: five sums with generators take as long as to begin the span.
    read = written = cached = kept = thought = 0
    for each in usages:
        read += each.input_tokens
        written += each.output_tokens
        cached += each.cached_input_tokens
        kept += each.cache_write_tokens
        thought += each.reasoning_tokens or 0
    found: dict[str, AttributeValue] = {names.INPUT_TOKENS: read, names.OUTPUT_TOKENS: written}
    if cached:
        found[names.CACHE_READ_TOKENS] = cached
    if kept:
        found[names.CACHE_WRITE_TOKENS] = kept
    if thought:
        found[names.REASONING_TOKENS] = thought
    return found
