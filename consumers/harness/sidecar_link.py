"""One process of the sidecar: from `ready` to its end, many runs over one pipe.

link = await SidecarLink.open(launcher, command, log=…)
channel = link.attach(run); await link.send(RunLine(…)); await channel.arrival(); line = channel.take()
await link.ended()
"""

import asyncio
import signal
from collections.abc import Callable

from agentstream.consumers.harness.launcher import Command, HarnessProcess, Launcher
from agentstream.consumers.harness.pi_protocol import (
    MAX_LINE_BYTES,
    PROTOCOL,
    AckLine,
    DoneLine,
    ErrorLine,
    EventLine,
    Line,
    PingLine,
    PongLine,
    ReadyLine,
    ToolCallLine,
    UnreadableLine,
    parse_line,
)
from agentstream.consumers.harness.sidecar_channel import Channel, Lost
from agentstream.consumers.harness.sidecar_lines import LineReader, LineWriter
from agentstream.consumers.harness.sidecar_pings import Pings

_EXIT_GRACE_S = 3.0


class SidecarUnavailable(Exception):
    """No sidecar that speaks our protocol could be started. Says what happened and what to do."""


class LineTooLong(Exception):
    """The line is longer than the sidecar reads."""


class SidecarLink:
    """A running sidecar. Opened by `open`; ends when the process does, which `close` and `kill` bring about."""

    def __init__(self, process: HarnessProcess, ready: ReadyLine, log: Callable[[str], None]) -> None:
        self.ready = ready
        self._process = process
        self._log = log
        self._loop = asyncio.get_running_loop()
        self._writer = LineWriter(process.stdin, self._loop)
        self._channels: dict[str, Channel] = {}
        self._pings = Pings(lambda number: self._write(PingLine(id=number).to_bytes()))
        self._lines_read = 0
        self._return_code: int | None = None
        self._reader = asyncio.create_task(self._read(), name=f"sidecar-{process.pid}-read")
        self._reader.add_done_callback(lambda _: self._pings.answer_all())
        self._logger = asyncio.create_task(self._read_log(), name=f"sidecar-{process.pid}-log")

    @classmethod
    async def open(
        cls, launcher: Launcher, command: Command, *, log: Callable[[str], None], timeout: float
    ) -> "SidecarLink":
        """Start a sidecar and wait for its `ready`. Raises SidecarUnavailable; then nothing is left running."""
        try:
            process = await launcher.start(command)
        except OSError as error:
            raise SidecarUnavailable(f"{command.argv[0]} cannot be started: {error.strerror}") from error
        try:
            async with asyncio.timeout(timeout):
                raw = await process.stdout.readline()
            ready = parse_line(raw) if raw else None
            if not isinstance(ready, ReadyLine):
                raise SidecarUnavailable(f"the sidecar did not get ready: {await last_words(process)}")
            if ready.protocol != PROTOCOL:
                raise SidecarUnavailable(
                    f"the sidecar speaks protocol {ready.protocol}, not {PROTOCOL}: install it again"
                )
        except (SidecarUnavailable, TimeoutError, UnreadableLine, ValueError, asyncio.CancelledError) as error:
            process.signal(signal.SIGKILL)
            await process.wait()
            if isinstance(error, SidecarUnavailable | asyncio.CancelledError):
                raise
            raise SidecarUnavailable(f"the sidecar did not get ready: {type(error).__name__}") from error
        return cls(process, ready, log)

    @property
    def pid(self) -> int:
        """The process id."""
        return self._process.pid

    @property
    def is_alive(self) -> bool:
        """Whether runs can be sent to it."""
        return not self._reader.done()

    def attach(self, run: str) -> Channel:
        """From now on the lines of this run are kept for the caller, until `detach`."""
        channel = Channel(run, self._acknowledge, self._loop)
        self._channels[run] = channel
        if not self.is_alive:
            channel.lose(Lost(return_code=self._return_code or 0, alone=True))
        return channel

    def detach(self, run: str) -> None:
        """The caller wants no more lines of it."""
        self._channels.pop(run, None)

    async def send(self, line: Line) -> None:
        """Write a line, and wait while the pipe is full. A sidecar that is gone is no error: its channels say so.

        Raises LineTooLong.
        """
        raw = line.to_bytes()
        if len(raw) > min(MAX_LINE_BYTES, self.ready.max_line_bytes):
            raise LineTooLong(f"a line of {len(raw)} bytes is longer than the sidecar reads")
        self._write(raw)
        try:
            await self._process.stdin.drain()
        except ConnectionError:
            return

    async def ping(self) -> None:
        """Return when the sidecar answered, or ended."""
        if self.is_alive:
            await self._pings.ask()

    async def watch(self, *, interval: float, patience: float) -> None:
        """Ping for ever; kill the process if nothing at all comes for `patience` seconds after a ping."""
        while self.is_alive:
            await asyncio.wait([self._reader], timeout=interval)
            pinged = asyncio.create_task(self.ping())
            read_before = self._lines_read
            await asyncio.wait([pinged], timeout=patience)
            # It may have been us who were blocked: whatever lies in the pipe is read before anyone is killed.
            await asyncio.wait([pinged], timeout=0.1)
            if not pinged.done() and self._lines_read == read_before:
                self._log(f"sidecar {self.pid} answered nothing for {patience:g} s: killed")
                self.kill()
                await asyncio.wait([self._reader])
            pinged.cancel()
            await asyncio.wait([pinged])

    async def ended(self) -> int:
        """The return code, once the process has ended and all that it wrote was handed on."""
        await asyncio.wait([self._reader])
        return self._return_code or 0

    def kill(self) -> None:
        """End it now."""
        self._process.signal(signal.SIGKILL)

    async def close(self) -> None:
        """Ask it to end, which aborts its runs; kill it if it does not within three seconds."""
        self._writer.close()
        await asyncio.wait([self._reader], timeout=_EXIT_GRACE_S)
        self.kill()
        await self.ended()
        await asyncio.wait([self._logger], timeout=_EXIT_GRACE_S)
        self._logger.cancel()

    def _acknowledge(self, run: str, n: int) -> None:
        self._write(AckLine(run=run, n=n).to_bytes())

    def _write(self, raw: bytes) -> None:
        if self.is_alive:
            self._writer.write(raw)

    async def _read(self) -> None:
        reader = LineReader(self._process.stdout, most=MAX_LINE_BYTES)
        try:
            while lines := await reader.read():
                self._lines_read += len(lines)
                for raw in lines:
                    self._dispatch(raw)
        except (ValueError, UnreadableLine) as error:
            # A line that is too long, or none of the protocol's: what follows it cannot be trusted.
            self._log(f"sidecar {self.pid} wrote a line that cannot be read ({error}): killed")
            self.kill()
        try:
            async with asyncio.timeout(_EXIT_GRACE_S):
                self._return_code = await self._process.wait()
        except TimeoutError:
            # It closed its output and lives on: deaf to us, and of no use.
            self.kill()
            self._return_code = await self._process.wait()
        channels = list(self._channels.values())
        for channel in channels:
            channel.lose(Lost(return_code=self._return_code, alone=len(channels) == 1))

    def _dispatch(self, raw: bytes) -> None:
        match parse_line(raw):
            case EventLine() | ToolCallLine() as line:
                channel = self._channels.get(line.run)
                if channel is not None and not channel.put(line, len(raw)):
                    raise UnreadableLine(f"line {line.n} came out of order")
            case DoneLine() as line:
                channel = self._channels.get(line.run)
                if channel is not None and not channel.finish(line):
                    raise UnreadableLine(f"line {line.n} came out of order")
                if channel is not None:
                    self._pings.then(channel.confirm)
            case PongLine(id=number):
                self._pings.answer(number)
            case ErrorLine(detail=detail, run=run):
                self._log(f"sidecar {self.pid} refused a line{f' of run {run}' if run else ''}: {detail}")
                if run is not None and (channel := self._channels.get(run)):
                    channel.refuse(detail)
                    self._pings.then(channel.confirm)
            case ReadyLine():
                raise UnreadableLine("a second `ready`")

    async def _read_log(self) -> None:
        while True:
            try:
                raw = await self._process.stderr.readline()
            except ValueError:
                continue
            if not raw:
                return
            self._log(raw.decode("utf-8", "replace").rstrip())


async def last_words(process: HarnessProcess) -> str:
    """What a process that ended too early said."""
    try:
        async with asyncio.timeout(1):
            text = (await process.stderr.read(4_096)).decode("utf-8", "replace")
    except TimeoutError:
        text = ""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    if not lines:
        return await _how_it_ended(process)
    return next((line for line in lines if "Error" in line), lines[-1])[:300]


async def _how_it_ended(process: HarnessProcess) -> str:
    """Of one that left no word: out of memory, say, the system kills it without any."""
    try:
        async with asyncio.timeout(1):
            code = await process.wait()
    except TimeoutError:
        return "it said nothing"
    return f"it was killed by signal {-code}" if code < 0 else f"it ended with {code} and said nothing"
