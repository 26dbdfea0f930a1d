"""The checker: what the promises mean for the topics' contents. It trusts nothing but the log.

    read_log(...) -> Log                       everything that the topics hold
    violations(log, acknowledged) -> [str]     every broken promise, as a sentence

It shares no bookkeeping with the engine: what it knows of promises is written out here once more.

    outcomes   one result, one dead letter, none skipped          order   a session's order; deltas and result agree
    books      committed offsets, claims, hanging transactions    follower   a reader who is there all the time
    ownership  who claimed a partition in which generation
"""

from collections.abc import Iterable

from tests.chaos.books import claims_only_grow, everything_committed, never_past_unfinished_work, nothing_hangs
from tests.chaos.log import Json, Line, Log, end_offsets, partitions_of, read_log, read_topic
from tests.chaos.order import in_session_order, rebuilt_as_the_result_says
from tests.chaos.outcomes import (
    cancelled_only_when_asked,
    dead_letters_are_true,
    ended_as_expected,
    exactly_one_result,
    nothing_skipped,
    one_line_each,
)
from tests.chaos.ownership import owners_change_with_generations, unreadable_metadata_stays

__all__ = [
    "Json",
    "Line",
    "Log",
    "end_offsets",
    "everything_committed",
    "one_line_each",
    "partitions_of",
    "read_log",
    "read_topic",
    "violations",
]


def violations(log: Log, acknowledged: Iterable[str]) -> list[str]:
    """Every broken promise, as a sentence. Empty: all kept. `acknowledged`: runs that owe a result."""
    told = log.told()
    return [
        *exactly_one_result(log, set(acknowledged)),
        *nothing_skipped(log),
        *one_line_each(log),
        *dead_letters_are_true(log),
        *ended_as_expected(log),
        *cancelled_only_when_asked(log),
        *in_session_order(log, told),
        *rebuilt_as_the_result_says(log, told),
        *never_past_unfinished_work(log),
        *claims_only_grow(log),
        *owners_change_with_generations(log, told),
        *unreadable_metadata_stays(log),
        *everything_committed(log),
        *nothing_hangs(log),
    ]
