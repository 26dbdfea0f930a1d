"""Exit codes, and errors as one line that says what to do."""

import errno
import os
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final, Never

from agentstream.infra.printable import one_line

OK: Final = 0
FAILED: Final = 1
USAGE: Final = 2
UNAVAILABLE: Final = 3
TIMED_OUT: Final = 4
BUG: Final = 70
INTERRUPTED: Final = 130

HELP: Final = (
    "Exit codes: 0 done · 1 the run failed or is not found, a plan was refused, doctor found something broken or "
    "compare says failed · 2 wrong usage or settings, or could not be judged · 3 Kafka, the harness or a tool is not "
    "available · 4 no result in time · 70 a bug of ours · 130 interrupted"
)
_BY_NAME: Final = {
    # By name, since importing their modules to ask `isinstance` would cost every command half a second.
    "SettingsError": USAGE,
    "TopicsError": FAILED,
    "ToolMissing": UNAVAILABLE,
    "BrokerError": UNAVAILABLE,
    "SidecarUnavailable": UNAVAILABLE,
    "RightMissing": UNAVAILABLE,
    "RequestRefused": USAGE,
    "TopicsMissing": UNAVAILABLE,
    "BrokerUnavailable": UNAVAILABLE,
    "RunTimeout": TIMED_OUT,
    "TopicMissing": UNAVAILABLE,
    "CoordinatorError": UNAVAILABLE,
    "ResultUnreadable": FAILED,
    "ResultExpired": FAILED,
    "RunIdTaken": USAGE,
    "SessionUnknown": FAILED,
    "SessionBusy": FAILED,
    "HistoryLost": FAILED,
    "ReplayError": USAGE,
    "ComparisonError": USAGE,
    "DockerException": UNAVAILABLE,
    "RecordingError": USAGE,
}
_DISK_FULL: Final = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
_KAFKA_ADVICE: Final = "check KAFKA_BOOTSTRAP_SERVERS and the KAFKA_* security settings, or run `agentstream doctor`"
_ADVICE: Final = {
    "TopicMissing": ", or this user may not see it; `agentstream topics apply` makes what is missing",
    "BrokerUnavailable": f": {_KAFKA_ADVICE}",
    "HistoryLost": "; --accept-gaps goes on with what is left",
}


class CommandError(Exception):
    """A command cannot go on. Its text is one line with what to do."""

    def __init__(self, line: str, code: int) -> None:
        super().__init__(line)
        self.code = code


class ReaderGone(Exception):
    """Nobody reads what a command writes any more (`| head`). No OSError: typer would end with 1 for one."""


def open_missing_streams() -> None:
    """Give a process that was started without stdin, stdout or stderr (`>&-`) an empty one.

    Python has None in its place, and the next socket would get the stream's number.
    """
    for number, name, mode in ((0, "stdin", "r"), (1, "stdout", "w"), (2, "stderr", "w")):
        if getattr(sys, name) is None:
            os.dup2(os.open(os.devnull, os.O_RDWR), number)
            setattr(sys, name, os.fdopen(number, mode, encoding="utf-8"))


def exit_code(error: BaseException, *, debug: bool) -> int:
    """Say on stderr what went wrong, if anything did, and return the exit code."""
    while isinstance(error, BaseExceptionGroup):  # of a task group: `invoke --file | head -1` ended as a bug of ours
        error = error.exceptions[0]
    names = _names(error)
    if isinstance(error, SystemExit):
        return error.code if isinstance(error.code, int) else OK
    if "Exit" in names:
        return int(getattr(error, "exit_code", OK))
    if isinstance(error, KeyboardInterrupt) or "Abort" in names:
        return INTERRUPTED
    if isinstance(error, (BrokenPipeError, ReaderGone)):
        close_stdout()
        return OK
    if "NoArgsIsHelpError" in names:
        sys.stderr.write(f"{error}\n")
        return USAGE
    line, code = _explained(error, names)
    if debug:
        traceback.print_exception(error)
    sys.stderr.write(f"agentstream: {line}\n")
    return code


def _names(error: BaseException) -> tuple[str, ...]:
    return tuple(kind.__name__ for kind in type(error).__mro__)


def _explained(error: BaseException, names: tuple[str, ...]) -> tuple[str, int]:
    text = one_line(str(error)) + next((_ADVICE[name] for name in names if name in _ADVICE), "")
    known = next((_BY_NAME[name] for name in names if name in _BY_NAME), None)
    if isinstance(error, CommandError):
        known = error.code
    if "UsageError" in names:
        text, known = _of_usage(error, text), USAGE
    elif "KafkaConnectionError" in names:
        from agentstream.consumers.client.errors import in_words
        from agentstream.infra.cli.unreachable import last_reason

        why = f" ({reason})" if (reason := last_reason()) else ""
        text, known = f"Kafka does not answer: {in_words(error)}{why}: {_KAFKA_ADVICE}", UNAVAILABLE
    elif "TopicAuthorizationFailedError" in names or "GroupAuthorizationFailedError" in names:
        from agentstream.consumers.client.errors import in_words

        text, known = one_line(in_words(error)), UNAVAILABLE
    elif "KafkaError" in names:
        text, known = f"Kafka: {text or type(error).__name__}: {_KAFKA_ADVICE}", UNAVAILABLE
    elif (isinstance(error, OSError) and error.errno in _DISK_FULL) or (
        getattr(error, "sqlite_errorname", None) == "SQLITE_FULL"
    ):
        close_stdout()
        text, known = f"cannot write: {text}", FAILED
    elif isinstance(error, TimeoutError) and known is None:
        text, known = f"Kafka did not answer in time: {_KAFKA_ADVICE}", UNAVAILABLE
    return (f"{type(error).__name__}: {text} (a bug: --debug shows where)", BUG) if known is None else (text, known)


def _of_usage(error: BaseException, text: str) -> str:
    """What is wrong with the command line, and where to look; `error` is click's."""
    said = " ".join(str(getattr(error, "format_message", lambda: text)()).split()).replace("Value error, ", "")
    option = getattr(error, "option_name", "")
    if option in ("--debug", "--config"):
        return f"{said} (it stands before the command: `agentstream {option} …`)"
    command = getattr(getattr(error, "ctx", None), "command_path", "agentstream")
    return f"{said} (`{command} --help` says what there is)"


def close_stdout() -> None:
    """Write to nobody from now on."""
    # Whoever read us has gone (`| head`); Python would complain once more when it flushes at the end.
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def fail(line: str, code: int = FAILED) -> Never:
    """End the command with this line."""
    raise CommandError(line, code)


@contextmanager
def no_verdict_if_unwritable() -> Iterator[None]:
    """End a command whose exit code is a verdict with 2 where a file cannot be written.

    A full disk ended `compare` with 1, which says that the change failed.
    """
    try:
        yield
    except OSError as error:
        if error.errno in _DISK_FULL:
            close_stdout()
        elif error.filename is None:
            raise
        fail(f"cannot write: {error}", USAGE)
