"""Points in time as people type them."""

import re
from datetime import UTC, datetime, timedelta

from agentstream.infra.cli.exits import USAGE, fail

_AGO = re.compile(r"(\d{1,6})([smhd])(?: ago)?", re.ASCII)
_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days"}


def instant(option: str, text: str | None, now: datetime) -> datetime | None:
    """What an option's text means: RFC 3339, or so long ago. Raises CommandError."""
    if text is None:
        return None
    if ago := _AGO.fullmatch(text):
        return now - timedelta(**{_UNITS[ago[2]]: int(ago[1])})
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        fail(f"{option} {text}: must be like 2026-01-31T12:00:00Z, or 90m, 2h, 7d", USAGE)
    return found if found.tzinfo is not None else found.replace(tzinfo=UTC)


def window(since: str | None, until: str | None, now: datetime) -> tuple[datetime | None, datetime | None]:
    """What `--since` and `--until` mean. Raises CommandError, also where nothing lies between."""
    begin, end = instant("--since", since, now), instant("--until", until, now)
    if begin is not None and end is not None and begin >= end:
        fail(f"--since {since} --until {until}: nothing lies between; --until must be later", USAGE)
    return begin, end


def duration(option: str, text: str | None) -> float | None:
    """Seconds that an option's text means. Raises CommandError."""
    if text is None:
        return None
    if not (found := _AGO.fullmatch(text)) or text.endswith("ago"):
        fail(f"{option} {text}: must be like 30s, 10m, 2h, 7d", USAGE)
    return timedelta(**{_UNITS[found[2]]: int(found[1])}).total_seconds()
