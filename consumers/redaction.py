"""Known secret values never leave: they are replaced in every text on its way out."""

from collections.abc import Iterable
from typing import TypeVar

from agentstream.schemas.base import WireModel

AnyModel = TypeVar("AnyModel", bound=WireModel)
REDACTED = "[redacted]"


class Redactor:
    """Replaces known secrets, plain and in their JSON-escaped, URL-encoded and base64 forms. Immutable."""

    def __init__(self, secrets: Iterable[str] = ()) -> None:
        raise NotImplementedError

    def text(self, text: str) -> str:
        """The text without secrets."""
        raise NotImplementedError

    def model(self, model: AnyModel) -> AnyModel:
        """The model without secrets in its texts; the same object where there are none."""
        raise NotImplementedError
