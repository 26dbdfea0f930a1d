"""An event loop in a thread of its own: the main thread waits at the terminal, and connections live on meanwhile."""

import asyncio
import threading
from collections.abc import Coroutine
from concurrent.futures import Future
from typing import Any, Self, TypeVar

T = TypeVar("T")


class LoopThread:
    """Runs coroutines for the main thread, which alone is given Ctrl-C. Opened and closed by `with`.

    Leaving it cancels what still runs and waits for that, unless it was abandoned.
    """

    def __init__(self) -> None:
        self._ready = threading.Event()
        self._thread = threading.Thread(target=self._run, name="event loop", daemon=True)
        self._abandoned = False
        self._loop: asyncio.AbstractEventLoop
        self._stop: asyncio.Event

    def __enter__(self) -> Self:
        self._thread.start()
        self._ready.wait()
        return self

    def __exit__(self, *exc_info: object) -> None:
        if self._abandoned:
            return
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join()

    def abandon(self) -> None:
        """Do not wait at the end: what still runs ends with the process."""
        self._abandoned = True

    def start(self, work: Coroutine[Any, Any, T]) -> "Future[T]":
        """Begin some work. Its `result()` is waited for as long as Ctrl-C does not raise KeyboardInterrupt there."""
        return asyncio.run_coroutine_threadsafe(work, self._loop)

    def _run(self) -> None:
        asyncio.run(self._serve())

    async def _serve(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._stop = asyncio.Event()
        self._ready.set()
        await self._stop.wait()
