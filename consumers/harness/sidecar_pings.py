"""Pings to a sidecar, and who waits for which answer."""

import asyncio
from collections.abc import Callable


class Pings:
    """Those who ask in the same round of the loop share a ping: with one for each run, a ninth of all lines were pings.

    `send` writes the ping of this number.
    """

    def __init__(self, send: Callable[[int], None]) -> None:
        self._send = send
        self._loop = asyncio.get_running_loop()
        self._sent = 0
        self._next: list[Callable[[], None]] = []
        self._unanswered: dict[int, list[Callable[[], None]]] = {}

    def then(self, call: Callable[[], None]) -> None:
        """Call it, once, when a ping that was sent from now on is answered, or none will be any more."""
        if not self._next:
            self._loop.call_soon(self._send_next)
        self._next.append(call)

    async def ask(self) -> None:
        """Return when a ping that was sent from now on is answered, or none will be any more."""
        answered = asyncio.Event()
        self.then(answered.set)
        await answered.wait()

    def answer(self, number: int) -> None:
        """The answer came."""
        for call in self._unanswered.pop(number, ()):
            call()

    def answer_all(self) -> None:
        """No answer will come any more: whoever waits need wait no longer."""
        self._send_next()
        for number in tuple(self._unanswered):
            self.answer(number)

    def _send_next(self) -> None:
        if self._next:
            self._sent += 1
            self._unanswered[self._sent], self._next = self._next, []
            self._send(self._sent)
