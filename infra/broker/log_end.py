"""What Kafka's log says at its end, as one line for people: a stack trace is none, and hid the one line that counts."""

import re

_FRAME = re.compile(r"\s*(at [\w.$/@<>-]+\(|\.\.\. \d+ (more|common frames))")
_THROWN = re.compile(r"\b\w*(Exception|Error): (?P<message>.+)")
_PORT = re.compile(r":(\d{1,5})\b")
_TAKEN = ("address already in use", "port is already allocated")


def log_end(text: str) -> str:
    """The message of what was thrown last, in the words of whoever says most of it; else the last line."""
    lines = [line.strip() for line in text.splitlines() if line.strip() and not _FRAME.match(line)]
    thrown = [(line, found["message"]) for line in lines if (found := _THROWN.search(line))]
    if not thrown:
        return lines[-1] if lines else "it is empty"
    # The cause stands last and says least: "Address already in use", and one line above it of which port.
    last, cause = thrown[-1]
    told = next((line for line, message in reversed(thrown) if cause in message and message != cause), last)
    return told.removeprefix("Caused by: ")


def taken_port(text: str) -> int | None:
    """The port that Kafka, or Docker for it, could not have because somebody else listens there; None: not that."""
    for line in text.splitlines():
        if any(words in line.lower() for words in _TAKEN) and (ports := _PORT.findall(line)):
            return int(ports[-1])
    return None
