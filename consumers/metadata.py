"""The ledger as it travels in the commit's metadata. Pure.

A JSON object of at most 4,096 characters (one more is fatal to aiokafka's producer):

    v  version of this format; a reader that does not know it keeps the partition closed
    c  claim number            o  owner's id, one per assignment     k  number of this commit within the claim
    r  1 if released on a clean shutdown                             n  next offset never seen, minus the committed one
    p  open offsets            s  which of them were started         x  [[index among the open, strikes], …]
    w  below this offset, minus the committed one, only the index of finished runs knows what is finished

`p` and `s` are gaps between sorted numbers, as varints, deflated, in base64url. Open ones, not finished ones: an
hour-long run never stalls its partition, and holes left by transaction markers vanish. 2,000 open offsets scattered
over 26,000 are about 1.7 kB.
"""

import base64
import json
import zlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from pydantic_core import to_json

VERSION = 1
MAX_METADATA = 4_096
MAX_OPEN = 20_000
_MAX_INFLATED = 1_000_000


class UnreadableMetadata(Exception):
    """Not ours, or of a version that this code does not know: the partition must stay closed."""


@dataclass(frozen=True, kw_only=True, slots=True)
class OpenOffset:
    """What is known of one request that is not finished."""

    started: bool = False
    """Whether a run of it began under the claim that wrote this."""
    strikes: int = 0
    """How many owners were lost while a run of it was under way."""


@dataclass(frozen=True, kw_only=True, slots=True)
class CommitState:
    """All that one owner leaves to the next."""

    offset: int
    """The committed offset: everything below is finished."""
    next_offset: int
    """The lowest offset never seen; those between are finished unless listed as open."""
    open: Mapping[int, OpenOffset] = field(default_factory=dict)
    """Requests seen and not finished, by offset."""
    claim: int = 0
    """The number of the claim that wrote this."""
    owner: str = ""
    """The id of the owner that wrote this; one per assignment of a partition."""
    commit: int = 0
    """Counts the commits of a claim, so that an owner can tell whether one in doubt happened."""
    released: bool = False
    """Whether the owner gave the partition back by itself."""
    index_until: int = 0
    """From `next_offset` to this one, what is finished stands in the index of finished runs alone: the group lost its
    offsets, or the open ones were too many to tell. 0: nowhere."""


def encode(state: CommitState) -> str:
    """The metadata for a commit. Never longer than MAX_METADATA.

    If the open offsets are too many to tell, `next_offset` is lowered and `index_until` raised: what lies between is
    read again, and the index of finished runs, read whole, says by offset what was finished of it.
    """
    text = _encode(state)
    while state.open and (len(text) > MAX_METADATA or len(state.open) > MAX_OPEN):
        kept = sorted(state.open)[: len(state.open) * 3 // 4]
        upper = kept[-1] + 1 if kept else state.offset
        state = replace(
            state,
            next_offset=upper,
            index_until=max(state.index_until, state.next_offset),
            open={offset: state.open[offset] for offset in kept},
        )
        text = _encode(state)
    return text


def _encode(state: CommitState) -> str:
    offsets = sorted(state.open)
    entries = enumerate(map(state.open.__getitem__, offsets))
    marked = [(index, entry) for index, entry in entries if entry.started or entry.strikes]
    body: dict[str, Any] = {"v": VERSION, "c": state.claim, "o": state.owner, "k": state.commit}
    if state.released:
        body["r"] = 1
    if state.index_until > state.offset:
        body["w"] = state.index_until - state.offset
    body["n"] = state.next_offset - state.offset
    if offsets:
        body["p"] = _pack(offsets, first=state.offset)
    if started := [index for index, entry in marked if entry.started]:
        body["s"] = _pack(started)
    if strikes := [[index, entry.strikes] for index, entry in marked if entry.strikes]:
        body["x"] = strikes
    return to_json(body).decode()


def decode(offset: int, metadata: str) -> CommitState:
    """The state behind a committed offset. Raises UnreadableMetadata.

    Empty metadata (an operator's reset, another tool's commit) is a state with nothing open and no owner.
    """
    if not metadata:
        return CommitState(offset=offset, next_offset=offset)
    try:
        body = json.loads(metadata)
        version = body["v"]
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        raise UnreadableMetadata("the commit metadata is not agentstream's") from error
    if version != VERSION:
        raise UnreadableMetadata(f"the commit metadata has version {version!r}; this worker knows {VERSION}")
    try:
        return _decode(offset, body)
    except (ValueError, TypeError, KeyError, OverflowError, zlib.error) as error:
        raise UnreadableMetadata("the commit metadata is damaged") from error


def _decode(offset: int, body: Mapping[str, Any]) -> CommitState:
    offsets = [offset + distance for distance in _unpack(body.get("p", ""))]
    started = set(_unpack(body.get("s", "")))
    strikes = {int(index): int(count) for index, count in body.get("x", [])}
    ahead = int(body["n"])
    if ahead < 0 or min(strikes.values(), default=0) < 0 or (offsets and offsets[-1] >= offset + ahead):
        raise ValueError("numbers that no owner writes")
    entries = {
        open_offset: OpenOffset(started=index in started, strikes=strikes.get(index, 0))
        for index, open_offset in enumerate(offsets)
    }
    return CommitState(
        offset=offset,
        next_offset=offset + ahead,
        open=entries,
        claim=int(body["c"]),
        owner=str(body["o"]),
        commit=int(body.get("k", 0)),
        released=bool(body.get("r", 0)),
        index_until=offset + int(body["w"]) if "w" in body else 0,
    )


def _pack(numbers: Iterable[int], *, first: int = 0) -> str:
    """Sorted numbers from `first` as gaps, varints, deflate, base64url without padding."""
    out = bytearray()
    previous = first - 1
    for number in numbers:
        gap = number - previous - 1
        previous = number
        while gap >= 0x80:
            out.append(gap & 0x7F | 0x80)
            gap >>= 7
        out.append(gap)
    return base64.urlsafe_b64encode(zlib.compress(bytes(out), 9, wbits=-15)).decode().rstrip("=")


def _unpack(text: str) -> list[int]:
    if not text:
        return []
    packed = base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
    inflater = zlib.decompressobj(wbits=-15)
    data = inflater.decompress(packed, _MAX_INFLATED)
    if not inflater.eof or data[-1:] >= b"\x80":
        # A list that was cut short would be taken for a short list, and the requests it has lost for finished ones.
        raise ValueError("a list of offsets is cut short")
    numbers: list[int] = []
    previous, value, shift = -1, 0, 0
    for byte in data:
        value |= (byte & 0x7F) << shift
        if byte & 0x80:
            shift += 7
            # A million continued bytes would be one number of 7 million bits, and minutes of work.
            if shift > 63:
                raise ValueError("a gap larger than any log")
            continue
        previous += value + 1
        numbers.append(previous)
        if len(numbers) > MAX_OPEN:
            raise ValueError("more open offsets than any owner holds")
        value, shift = 0, 0
    return numbers
