"""A collector in a process of its own: takes what comes and answers at once, or never. It decodes only when asked.

    python -m tests.benchmarks.collector [hang]     prints its port

One that decodes costs more than what is measured, and one in the benchmark's process waits for the benchmark's turn.
"""

import asyncio
import gzip
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from urllib.request import urlopen

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

_TAKEN = b"HTTP/1.1 200 OK\r\nContent-Type: application/x-protobuf\r\nContent-Length: 0\r\n\r\n"


async def serve(*, hang: bool) -> None:
    """Until it is killed."""
    bodies: list[bytes] = []

    async def converse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).lower()
                if head.startswith(b"get"):
                    text = str(_different(bodies)).encode()
                    writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(text), text))
                    continue
                length = int(head.partition(b"content-length:")[2].split(b"\r\n")[0])
                body = await reader.readexactly(length)
                if hang:
                    await asyncio.Event().wait()
                bodies.append(gzip.decompress(body) if b"content-encoding: gzip" in head else body)
                writer.write(_TAKEN)
        except (asyncio.IncompleteReadError, ConnectionError):
            writer.close()

    server = await asyncio.start_server(converse, "127.0.0.1", 0, limit=1 << 22)
    print(server.sockets[0].getsockname()[1], flush=True)  # noqa: T201
    await server.serve_forever()


def _different(bodies: list[bytes]) -> int:
    messages = map(ExportTraceServiceRequest.FromString, bodies)
    scopes = [scope for message in messages for resource in message.resource_spans for scope in resource.scope_spans]
    return len({(span.trace_id, span.span_id) for scope in scopes for span in scope.spans})


class Collector:
    """The benchmark's end of one."""

    def __init__(self, port: int) -> None:
        self.endpoint = f"http://127.0.0.1:{port}"

    @property
    def spans(self) -> int:
        """How many different ones it has taken; not for one that hangs."""
        with urlopen(self.endpoint, timeout=120) as answer:
            return int(answer.read())


@contextmanager
def collector(*, hang: bool = False) -> Iterator[Collector]:
    """One that runs until the end of the block."""
    command = [sys.executable, "-m", "tests.benchmarks.collector", *(["hang"] if hang else [])]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            yield Collector(int(process.stdout.readline()))
        finally:
            process.kill()


if __name__ == "__main__":
    asyncio.run(serve(hang="hang" in sys.argv))
