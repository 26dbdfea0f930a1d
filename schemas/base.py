"""What every model on the wire has in common."""

from datetime import datetime
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, StringConstraints

RUN_ID_PATTERN = r"^[A-Za-z0-9._:-]{1,128}$"

RunId = Annotated[str, StringConstraints(pattern=RUN_ID_PATTERN)]
SessionId = Annotated[str, StringConstraints(min_length=1, max_length=256)]
Instant = datetime
Metadata = Annotated[dict[Annotated[str, StringConstraints(max_length=128)], str], Field(max_length=64)]


class WireModel(BaseModel):
    """A frozen value on the wire. Readers ignore fields they do not know, so writers may add optional ones."""

    model_config = ConfigDict(frozen=True, extra="ignore", strict=False, ser_json_inf_nan="null")

    def to_bytes(self) -> bytes:
        """UTF-8 JSON. Absent optional fields are left out: a reader must not tell `null` from absent."""
        return self.model_dump_json(exclude_none=True).encode()
