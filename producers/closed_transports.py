"""uvloop's word for a connection that was closed, in aiokafka's words.

Who writes to a transport that has just lost its peer is told nothing by asyncio: the reader is, a turn later. uvloop
raises RuntimeError, which aiokafka does not expect. It ended a worker as a bug would (one of 17, in 40 faults of a
cluster and its network), and it would end, for good, the task that keeps a client's metadata up to date.
"""

from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any, Final

from aiokafka.errors import KafkaConnectionError

_SAID: Final = "the handler is closed"
"""By uvloop 0.23, at the end of `unable to perform operation on <TCPTransport closed=True …>`."""


def expect_closed_transports(client: Any) -> None:
    """Have an aiokafka client raise KafkaConnectionError, or fail to update its metadata, where uvloop raises."""
    for name in ("bootstrap", "ready", "send"):
        setattr(client, name, partial(_translated, getattr(client, name)))
    client._metadata_update = partial(_updated, client._metadata_update)


async def _translated(call: Callable[..., Awaitable[Any]], *args: Any, **options: Any) -> Any:
    try:
        return await call(*args, **options)
    except RuntimeError as error:
        if _SAID not in str(error):
            raise
        raise KafkaConnectionError("a connection was closed as it was written to") from error


async def _updated(update: Callable[..., Awaitable[bool]], *args: Any) -> bool:
    try:
        return bool(await _translated(update, *args))
    except KafkaConnectionError:
        return False
