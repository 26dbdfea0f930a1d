"""Why there is no connection: aiokafka raises only that there is none, and logs the reason."""

import logging
import re

from agentstream.infra.printable import one_line

_LOGGER = "aiokafka"
_LINE = re.compile(r'Unable connect to "[^"]*": (?:\[Error \d+\] )?(.+)', re.DOTALL)


class _LastReason(logging.Filter):
    """Reads what is logged, and keeps the last reason."""

    def __init__(self) -> None:
        super().__init__()
        self.reason = ""

    def filter(self, record: logging.LogRecord) -> bool:
        """Keep it; every line passes."""
        if found := _LINE.fullmatch(record.getMessage()):
            self.reason = one_line(found[1])
        return True


def listen_for_reasons() -> None:
    """For commands whose log is silent: hear why no connection could be made, and still show no line of the log."""
    for handler in logging.getLogger().handlers:
        handler.setLevel(logging.CRITICAL)
    logger = logging.getLogger(_LOGGER)
    logger.setLevel(logging.ERROR)
    logger.addFilter(_LastReason())


def last_reason() -> str:
    """What was heard last; empty if nothing was.

    A wrong password was told as `Kafka does not answer: Unable to bootstrap`, and people looked for a firewall.
    """
    heard = (each.reason for each in logging.getLogger(_LOGGER).filters if isinstance(each, _LastReason))
    return next((reason for reason in heard if reason), "")
