"""Chat messages made of parts, under the part names of OpenTelemetry's GenAI conventions (v1.41)."""

from typing import Annotated, Any, Literal, Self

from pydantic import Field, GetJsonSchemaHandler, JsonValue, model_validator
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema, PydanticCustomError

from agentstream.schemas.base import Flag, Int, WireModel

Role = Literal["system", "user", "assistant", "tool"]
FinishReason = Literal["stop", "length", "tool_call", "content_filter", "error", "cancelled"]
MAX_PARTS = 256


class TextPart(WireModel):
    """Text written by a person or a model."""

    type: Literal["text"] = Field(default="text", description="Names the kind of part.")
    content: str = Field(description="The text.")


class ReasoningPart(WireModel):
    """What a model thought before it answered."""

    type: Literal["reasoning"] = Field(default="reasoning", description="Names the kind of part.")
    content: str = Field(description="The reasoning as text; may be a summary.")


class ToolCallPart(WireModel):
    """A model's wish to have a tool called."""

    type: Literal["tool_call"] = Field(default="tool_call", description="Names the kind of part.")
    id: str = Field(description="Joins the call with its response.")
    name: str = Field(description="The tool's name.")
    arguments: JsonValue = Field(default=None, description="The arguments as JSON, usually an object.")


class ToolCallResponsePart(WireModel):
    """What a tool answered."""

    type: Literal["tool_call_response"] = Field(default="tool_call_response", description="Names the kind of part.")
    id: str = Field(description="The id of the tool call that this answers.")
    response: JsonValue = Field(default=None, description="The tool's output as JSON, usually a string.")
    is_error: Flag = Field(default=False, description="Whether the tool failed.")


class BlobPart(WireModel):
    """Bytes that travel inside the message."""

    type: Literal["blob"] = Field(default="blob", description="Names the kind of part.")
    modality: str = Field(description="image, audio, video or another kind.")
    mime_type: str | None = Field(default=None, description="IANA media type.")
    content: str = Field(description="The bytes in base64.")


class FilePart(WireModel):
    """A file that the provider already holds."""

    type: Literal["file"] = Field(default="file", description="Names the kind of part.")
    modality: str = Field(description="image, audio, video or another kind.")
    mime_type: str | None = Field(default=None, description="IANA media type.")
    file_id: str = Field(description="The provider's id of the file.")


class UriPart(WireModel):
    """Content that lies elsewhere."""

    type: Literal["uri"] = Field(default="uri", description="Names the kind of part.")
    modality: str = Field(description="image, audio, video or another kind.")
    mime_type: str | None = Field(default=None, description="IANA media type.")
    uri: str = Field(description="Where the content lies.")


Part = Annotated[
    TextPart | ReasoningPart | ToolCallPart | ToolCallResponsePart | BlobPart | FilePart | UriPart,
    Field(discriminator="type"),
]


class Message(WireModel):
    """One chat message. Either `parts`, or the shorthand `content` for a message that is one text."""

    role: Role = Field(description="Who speaks.")
    parts: tuple[Part, ...] = Field(min_length=1, max_length=MAX_PARTS, description="The content, in order.")
    name: str | None = Field(default=None, max_length=256, description="Name of the speaker, where there are several.")

    @model_validator(mode="before")
    @classmethod
    def _content_is_shorthand_for_one_text_part(cls, data: Any) -> Any:
        if not isinstance(data, dict) or "content" not in data:
            return data
        if "parts" in data:
            raise ValueError("give either `parts` or `content`, not both")
        content = data["content"]
        if not isinstance(content, str):
            raise PydanticCustomError("content_type", "`content` must be a string; use `parts` for anything else")
        rest = {key: value for key, value in data.items() if key != "content"}
        return {**rest, "parts": [{"type": "text", "content": content}]}

    @classmethod
    def __get_pydantic_json_schema__(cls, core_schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        """What callers may write includes the shorthand; what we write always has `parts`."""
        schema = handler(core_schema)
        if handler.mode == "validation":
            model = handler.resolve_ref_schema(schema)
            model["properties"]["content"] = {"type": "string", "description": "Shorthand for one text part."}
            model["required"] = ["role"]
            model["oneOf"] = [{"required": ["parts"]}, {"required": ["content"]}]
        return schema

    @classmethod
    def of_text(cls, role: Role, text: str) -> Self:
        """A message that is one text."""
        return cls(role=role, parts=(TextPart(content=text),))

    @property
    def text(self) -> str:
        """All text parts in order, joined."""
        return "".join(part.content for part in self.parts if isinstance(part, TextPart))


class Usage(WireModel):
    """Tokens used, for one provider and model."""

    provider: str = Field(description="Who served the model, such as `openai`.")
    model: str = Field(description="The model's id at that provider.")
    input_tokens: Int = Field(ge=0, description="Tokens read, cached ones included (OpenTelemetry's rule).")
    output_tokens: Int = Field(ge=0, description="Tokens written, reasoning included.")
    cached_input_tokens: Int = Field(default=0, ge=0, description="Of the tokens read, those from a cache.")
    cache_write_tokens: Int = Field(default=0, ge=0, description="Tokens written to the provider's cache.")
    reasoning_tokens: Int | None = Field(default=None, ge=0, description="Of the tokens written, those of reasoning.")


class Cost(WireModel):
    """What a run cost. Absent where unknown: a made-up 0 would be believed."""

    amount: str = Field(pattern=r"^\d+(\.\d+)?$", description="Decimal amount as text, so that no reader rounds it.")
    currency: str = Field(default="USD", pattern=r"^[A-Z]{3}$", description="ISO 4217 code.")
    source: str = Field(description="Where the prices come from, such as `provider` or `settings`.")
