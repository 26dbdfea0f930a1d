"""What asyncio would print by itself: errors that nobody looked at."""

import asyncio
import gc
import logging
from collections.abc import Iterator
from contextlib import contextmanager

import pytest


@contextmanager
def no_complaints(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    """Fail if, at the end, an error is thrown away that nobody has looked at."""
    # pytest keeps what is logged, errors included, and they would keep everything that raised them.
    caplog.set_level(logging.CRITICAL, "aiokafka.producer.sender")
    complaints: list[object] = []
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(lambda _, context: complaints.append(context))
    try:
        yield
        gc.collect()
        assert not complaints, complaints
    finally:
        loop.set_exception_handler(None)
