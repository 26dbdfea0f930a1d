"""Lines of a file as requests. Pure, and total: a line that is none is a `Broken`, and the next one goes on.

A line is `{"message": "hi"}`, or an `InvokeRequest` as it is on the wire; `session`, `model` and `run_id` may be
written for `session_id`, `parameters.model` and `id`. What a line does not say is as the command line says.

A line without a run id gets the same one each time: the uuid5 of what is asked, of how often the same was asked above
it, and of the round's name. So whoever starts again after a crash asks nothing twice, and lines may be added anywhere.
"""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import sha256
from typing import Final
from uuid import UUID, uuid5

from agentstream.consumers.client.checking import unknown_in_messages, unknown_name, unknown_parameter
from agentstream.consumers.client.requests import RequestOptions
from agentstream.schemas.bounds import Bounds
from agentstream.schemas.errors import Problem
from agentstream.schemas.parsing import parse_object
from agentstream.schemas.requests import InvokeRequest
from agentstream.schemas.validation import validated

NAMESPACE: Final = UUID("3e2ccb6e-4a0f-5a53-8d0b-7c3c0f4a3f51")
"""Of the run ids that are made here."""
SHORT: Final = {"session": "session_id", "run_id": "id"}
NAMES: Final = tuple(dict.fromkeys(("message", "messages", "session", "model", "run_id", *InvokeRequest.model_fields)))
BOUNDS: Final = Bounds(max_bytes=2**31)
"""The client says how large a request may be; a line has more whitespace."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Line:
    """A line that is a request."""

    number: int
    """Its number, from 1."""
    request: InvokeRequest
    """The request, with a run id."""

    @property
    def run_id(self) -> str:
        """The run's id."""
        return self.request.id or ""

    @property
    def session_id(self) -> str:
        """The run's session."""
        return self.request.session_id or self.run_id


@dataclass(frozen=True, kw_only=True, slots=True)
class Broken:
    """A line that is none."""

    number: int
    """Its number, from 1."""
    why: str
    """What is wrong, and where in the line."""


class Lines:
    """Reads the lines of one file, in order."""

    def __init__(self, defaults: RequestOptions, *, round_name: str = "") -> None:
        """`defaults`: what holds for lines that do not say otherwise."""
        parameters = defaults.get("parameters")
        self._parameters: Mapping[str, object] = parameters if isinstance(parameters, Mapping) else {}
        self._metadata = dict(defaults.get("metadata") or {})
        self._session = defaults.get("session_id")
        self._round = round_name
        self._number = 0
        self._asked: Counter[bytes] = Counter()
        self._run_ids: dict[str, int] = {}

    def read(self, raw: bytes) -> Line | Broken | None:
        """The next line; None if it is empty."""
        self._number += 1
        text = raw.strip()
        if not text:
            return None
        parsed = parse_object(text, BOUNDS)
        if parsed.problem is not None or parsed.document is None:
            return self._broken(parsed.problem)
        document = parsed.document
        if why := self._written_out(document):
            return Broken(number=self._number, why=why)
        request = validated(InvokeRequest, document)
        if isinstance(request, Problem):
            return self._broken(request)
        return self._named(request)

    def _written_out(self, document: dict[str, object]) -> str | None:
        """Replace what is short for something, and fill in what holds for all; gives what is wrong."""
        for name in document:
            if unknown := unknown_name(name, NAMES, kind="field"):
                return unknown
        if "message" in document:
            if "messages" in document:
                return "give either `message` or `messages`, not both"
            if not isinstance(message := document.pop("message"), str) or not message.strip():
                return "message: must be a text that is not empty"
            document["messages"] = [{"role": "user", "content": message}]
        messages = document.get("messages")
        if isinstance(messages, list) and (unknown := unknown_in_messages(messages)):
            return unknown
        for short, name in SHORT.items():
            if short in document:
                if name in document:
                    return f"give either `{short}` or `{name}`, not both"
                document[name] = document.pop(short)
        return self._filled(document)

    def _filled(self, document: dict[str, object]) -> str | None:
        parameters = document.get("parameters", {})
        if not isinstance(parameters, dict):
            return "parameters: must be an object"
        if "model" in document:
            parameters = {**parameters, "model": document.pop("model")}
        if unknown := unknown_parameter(parameters):
            return f"parameters.{unknown}"
        document["parameters"] = _over(self._parameters, parameters)
        if self._session is not None:
            document.setdefault("session_id", self._session)
        metadata = document.get("metadata", {})
        if isinstance(metadata, dict):
            document["metadata"] = {**self._metadata, **metadata}
        return None

    def _named(self, request: InvokeRequest) -> Line | Broken:
        if request.id is None:
            body = sha256(request.to_bytes()).digest()
            self._asked[body[:8]] += 1
            name = f"{self._round}/{self._asked[body[:8]]}/{body.hex()}"
            request = request.model_copy(update={"id": str(uuid5(NAMESPACE, name))})
        elif (first := self._run_ids.setdefault(request.id, self._number)) != self._number:
            return Broken(number=self._number, why=f"run_id: that of line {first}; each run has its own")
        return Line(number=self._number, request=request)

    def _broken(self, problem: Problem | None) -> Broken:
        why = "not a JSON object" if problem is None else problem.detail or problem.title
        return Broken(number=self._number, why=why.replace("at line 1 column", "at column"))


def _over(below: Mapping[str, object], above: Mapping[str, object]) -> dict[str, object]:
    """`above` where it says something; `limits`, options and the like field by field."""
    merged = dict(below)
    for name, value in above.items():
        lower = merged.get(name)
        merged[name] = _over(lower, value) if isinstance(lower, Mapping) and isinstance(value, Mapping) else value
    return merged
