"""Kinds of values in the settings, and what is wrong with those that are none."""

import re
from typing import Annotated, Final, Literal
from urllib.parse import urlsplit

from pydantic import AfterValidator, BeforeValidator, StringConstraints
from pydantic_settings import NoDecode

from agentstream.schemas.requests import Name, ToolName

_SERVER: Final = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[^\s:/\[\]]+)(:(?P<port>[0-9]{1,5}))?")


def _listed(value: object) -> object:
    """A list from the file as it is, a text from the environment split at commas."""
    return tuple(word.strip() for word in value.split(",") if word.strip()) if isinstance(value, str) else value


def _servers(value: object) -> object:
    """An array from the file as the text that Kafka clients take."""
    return ",".join(value) if isinstance(value, list) and all(isinstance(each, str) for each in value) else value


def _addresses(value: str) -> str:
    servers = [server.strip() for server in value.split(",")]
    for server in servers:
        found = _SERVER.fullmatch(server)
        if found is None or not 0 < int(found["port"] or 9092) < 65_536:
            raise ValueError("must be `host:port`, several separated by commas; an IPv6 address in brackets")
    return ",".join(servers)


def _url(value: str) -> str:
    parts = urlsplit(value)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError("must be a URL such as https://host/v1")
    return value


def _without_password(value: str) -> str:
    parts = urlsplit(value)
    if parts.username is not None or parts.password is not None:
        raise ValueError("must hold no user and no password: use AGENTSTREAM_PI_HTTP_TOKEN")
    return value


Servers = Annotated[str, BeforeValidator(_servers), AfterValidator(_addresses)]
Url = Annotated[str, AfterValidator(_url)]
SidecarUrl = Annotated[Url, AfterValidator(_without_password)]
"""`agentstream dev` writes it to its state file, which holds no secrets."""
TopicPrefix = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9._-]{0,128}$")]
TraceNames = Annotated[tuple[Literal["prompt_tokens", "openinference"], ...], NoDecode, BeforeValidator(_listed)]
EventLoop = Literal["auto", "asyncio", "uvloop"]
Names = Annotated[tuple[Name, ...], NoDecode, BeforeValidator(_listed)]
Tools = Annotated[tuple[ToolName, ...], NoDecode, BeforeValidator(_listed)]
GroupId = Annotated[str, StringConstraints(min_length=1, max_length=200)]
Price = Annotated[str, StringConstraints(pattern=r"^\d{1,6}(\.\d{1,9})?$")]
