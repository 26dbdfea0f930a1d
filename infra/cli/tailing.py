"""`agentstream tail`."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

from aiokafka.partitioner import DefaultPartitioner

from agentstream.consumers.log_scan import LogScan, Scanned
from agentstream.consumers.readers import Expired, Start, TopicReader
from agentstream.infra.cli.context import Cluster, Context
from agentstream.infra.cli.exits import USAGE, fail
from agentstream.infra.cli.instants import instant
from agentstream.infra.cli.screen import Screen
from agentstream.infra.cli.silence import BrokerSilence, watching
from agentstream.infra.cli.tail_feed import Feed, Seen, Wanted, What, topic_of
from agentstream.infra.cli.tail_last import Last
from agentstream.infra.cli.tail_lines import as_json, cells, line
from agentstream.infra.cli.tail_streams import Streams
from agentstream.schemas.records import Record

LAST: Final = 10
MAX_LAST: Final = 10_000
_NEAR, _FAR = 100, 100_000
"""So many records of each partition are looked at for the last ones: first few, then as many as `where` looks at.
Offsets rather: every other one may be the marker of a transaction."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Asked:
    """The options as they were typed."""

    what: What
    """The topic."""
    session: str | None
    """Only of this session."""
    run: str | None
    """Only of this run."""
    status: str | None
    """Only results with this status."""
    since: str | None
    """Only since then."""
    partition: int | None
    """Only in this partition."""
    last: int | None
    """So many of those that are there already; None: ten, and all with `since` or `run`."""
    most: int | None
    """End after so many."""
    follow: bool
    """Whether to wait for what comes."""
    as_json: bool
    """JSON, an object a line."""


def run_tail(context: Context, asked: Asked) -> None:
    """Show what is there, then what comes, until Ctrl-C, `most`, or the end of the run that was asked for."""
    if asked.status is not None and asked.what != "results":
        fail(f"--status is for results: {asked.what} have none; leave one of the two out", USAGE)
    for option, value in (("--run", asked.run), ("--session", asked.session)):
        if value is not None and not value.strip():
            fail(f"{option}: is empty, and nothing would match; leave it out to see all {asked.what}", USAGE)
    since = instant("--since", asked.since, datetime.now(UTC))
    settings = context.settings()
    context.quiet_logs(settings)
    tail = _Tail(context.cluster(settings), asked, since, Screen())
    asyncio.run(tail.run())


class _UncommittedReader(TopicReader[Record]):
    # Deltas never ride in a transaction; somebody else's open one must not hold them back.
    read_committed = False


class _Enough(Exception):
    """All that was asked for is shown."""


class _Tail:
    def __init__(self, cluster: Cluster, asked: Asked, since: datetime | None, screen: Screen) -> None:
        self._cluster = cluster
        self._asked = asked
        self._since = since
        self._screen = screen
        self._topic = topic_of(asked.what, cluster.topics)
        self._wanted = Wanted(session=asked.session, run=asked.run, status=asked.status, since=since)
        self._feed = Feed(asked.what, self._wanted)
        self._streams = Streams(screen) if asked.what == "deltas" and screen.for_people and not asked.as_json else None
        self._show = self._shower()
        self._shown = 0

    async def run(self) -> None:
        partitions = await self._partitions()
        try:
            await self._read(partitions)
        except _Enough:
            return
        finally:
            if self._streams is not None:
                self._streams.end()

    async def _read(self, partitions: tuple[int, ...]) -> None:
        start: Start
        if self._asked.last == 0:
            start = "end"
        elif self._asked.last is None and self._since is not None and self._asked.run is None:
            start = self._since
        else:
            start = await self._what_is_there(partitions)
            if not self._asked.follow:
                return
        async with self._reader(start, partitions) as reader, self._watched() as heard:
            if self._asked.follow:
                self._screen.note(f"following {self._topic}{_numbers(self._asked, partitions)}; Ctrl-C ends")
            async for found in reader:
                heard()
                if isinstance(found, Expired):
                    gone = found.resumed_at - found.expected
                    self._screen.note(f"{gone} offsets of partition {found.partition} expired before they were read")
                elif (seen := self._feed.take(found.record)) is not None:
                    self._shows(seen)

    async def _partitions(self) -> tuple[int, ...]:
        """Those to read: of a session the one where Kafka's default partitioner puts it."""
        async with self._scan(_NEAR) as scan:
            existing = await scan.partitions()
        if (chosen := self._asked.partition) is not None:
            if chosen not in existing:
                fail(f"--partition {chosen}: {self._topic} has the partitions 0 to {max(existing)}", USAGE)
            return (chosen,)
        if self._asked.session is None:
            return existing
        numbers = list(existing)
        return (DefaultPartitioner()(self._asked.session.encode("utf-8", "replace"), numbers, numbers),)

    async def _what_is_there(self, partitions: tuple[int, ...]) -> dict[int, int]:
        """Show the last records that are meant. Gives the offsets at which they were the last ones."""
        asked = self._asked
        count = asked.last if asked.last is not None else MAX_LAST if asked.run is not None else LAST
        # Few records of a busy topic are meant where a run or a session is: the short look would be in vain.
        picky = asked.run is not None or asked.session is not None or asked.status is not None
        last, feed, scanned = await self._look(partitions, count, _FAR if picky else max(_NEAR, 4 * count))
        if not picky and not scanned.whole and len(last) < count:
            last, feed, scanned = await self._look(partitions, count, _FAR)
        self._feed = feed
        for seen in last.in_order():
            self._shows(seen)
        if last.too_large:
            self._screen.note(f"the last {len(last)} are shown: more are too large to be held; --since shows all")
        elif len(last) < count and not scanned.whole:
            self._screen.note(f"only the last {_FAR} records of each partition were looked at; --since looks further")
        return dict(scanned.ends)

    async def _look(self, partitions: tuple[int, ...], count: int, depth: int) -> tuple[Last, Feed, Scanned]:
        last, feed = Last(self._asked.what, count), Feed(self._asked.what, self._wanted)

        def seen(record: Record) -> bool:
            if (found := feed.take(record)) is not None:
                last.add(found)
            return False

        async with self._scan(depth) as scan:
            start: dict[int, int] = {}
            if self._since is not None:
                for number in partitions:
                    start |= await scan.since(int(self._since.timestamp() * 1000), number)
            else:
                begins = await scan.beginnings()
                start = {number: begins[number] for number in partitions}
            return last, feed, await scan.run(start, seen)

    def _scan(self, depth: int) -> LogScan:
        committed = self._asked.what != "deltas"
        connection, note = self._cluster.connection, self._screen.note
        return LogScan(connection, self._topic, last=depth, progress=note, committed=committed)

    def _reader(self, start: Start, partitions: tuple[int, ...]) -> TopicReader[Record]:
        kind = _UncommittedReader if self._asked.what == "deltas" else TopicReader[Record]
        until_end = not self._asked.follow
        # Decoded by the feed, and only what is meant: a busy topic has much that is not.
        return kind(
            self._cluster.connection, self._topic, _itself, start=start, partitions=partitions, until_end=until_end
        )

    @asynccontextmanager
    async def _watched(self) -> AsyncIterator[Callable[[], None]]:
        """Inside it is said when the brokers go and come back; give a word whenever they were heard."""
        now = asyncio.get_running_loop().time
        silence = BrokerSilence(now())
        async with watching(silence, self._cluster.connection, lambda text: self._screen.note(text, "yellow")):
            yield lambda: silence.spoke(now())

    def _shows(self, seen: Seen) -> None:
        self._show(seen)
        self._shown += 1
        of_this_run = self._asked.run is not None and seen.ends_run
        if self._shown == self._asked.most or of_this_run:
            raise _Enough

    def _shower(self) -> Callable[[Seen], None]:
        screen = self._screen
        if self._asked.as_json:
            return lambda seen: screen.json(as_json(seen))
        if self._streams is not None:
            return self._streams.show
        if screen.for_people:
            return lambda seen: screen.out(line(seen))
        return lambda seen: screen.piece("".join("\t".join(each) + "\n" for each in cells(seen)))


def _numbers(asked: Asked, partitions: tuple[int, ...]) -> str:
    if len(partitions) > 1:
        return ""
    why = ", where its session lies" if asked.session is not None and asked.partition is None else ""
    return f"/{partitions[0]}{why}"


def _itself(record: Record) -> Record:
    return record
