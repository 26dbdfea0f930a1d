"""How much a worker holds at once. Pure."""

MAX_HELD_BYTES = 64 * 1024 * 1024
RESUME_AT = 0.75


class Intake:
    """Counts requests taken and not finished, and their bytes, over all partitions.

    Full at either bound; open again below 75 % of both, so that a worker at its limit does not pause and resume for
    every record (each pause throws prefetched data away).
    """

    def __init__(self, *, max_held: int, max_bytes: int = MAX_HELD_BYTES) -> None:
        """`max_held`: requests waiting or running in this worker."""
        self._max_held = max_held
        self._max_bytes = max_bytes
        self._full = False
        self._sharers = 0
        self.held = 0
        self.held_bytes = 0

    @property
    def full(self) -> bool:
        """Whether nothing more may be fetched now."""
        return self._full

    def full_for(self, held: int) -> bool:
        """Whether nothing more may be fetched of a partition of which so many requests are held.

        Each may have its share of the requests, also where others have used up the whole: one session with thousands
        of requests waiting filled the worker, and all its other partitions stood still behind it with slots idle.
        """
        if not self._full or self.held_bytes >= self._max_bytes * RESUME_AT:
            return self._full
        return held >= self._max_held // max(1, self._sharers)

    def joined(self) -> None:
        """One more partition shares it."""
        self._sharers += 1

    def left(self) -> None:
        """One less."""
        self._sharers -= 1

    def taken(self, size: int) -> None:
        """A request of this many bytes is held now."""
        self.held += 1
        self.held_bytes += size
        if self.held >= self._max_held or self.held_bytes >= self._max_bytes:
            self._full = True

    def released(self, size: int) -> None:
        """It is finished, or its partition is lost."""
        self.held -= 1
        self.held_bytes -= size
        if self.held <= self._max_held * RESUME_AT and self.held_bytes <= self._max_bytes * RESUME_AT:
            self._full = False
