"""What can go wrong when a transaction is written.

    WriteError
     ├─ Fenced      a newer producer of the same id exists, or the transaction timed out: they look alike. Never again
     ├─ Refused     the broker refused a record for what it is; nothing of this transaction will be visible
     └─ Interrupted connection, time-out, anything else; `in_doubt` says whether the commit may have happened. Again

After any of them the writer is of no more use: stop it and open a new one.
"""


class WriteError(Exception):
    """A transaction did not end well, and its writer must be replaced."""

    in_doubt: bool = False


class Fenced(WriteError):
    """Another producer of this transactional id started later, or the broker timed the transaction out."""

    in_doubt = True


class Refused(WriteError):
    """The broker refused a record: too large, corrupt. Certain not to be committed."""


class Interrupted(WriteError):
    """The connection, the coordinator or the time ran out."""

    def __init__(self, message: str, *, in_doubt: bool) -> None:
        super().__init__(message)
        self.in_doubt = in_doubt
