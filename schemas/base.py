"""What every model on the wire has in common: its base class and its scalar types."""

import re
from collections.abc import Callable
from datetime import datetime
from typing import Annotated, ParamSpec, Self, TypeVar, cast

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, Strict, StringConstraints
from pydantic_core import PydanticSerializationError

RUN_ID_PATTERN = r"^[A-Za-z0-9._:-]{1,128}$"
MAX_SESSION_ID = 256

_RFC_3339 = re.compile(r"\d{4}-\d\d-\d\d[Tt ]\d\d:\d\d:\d\d(\.\d+)?([Zz]|[+-]\d\d:\d\d)", re.ASCII)
_YEARS = range(1970, 9999)
T = TypeVar("T")
P = ParamSpec("P")
AnyWireModel = TypeVar("AnyWireModel", bound="WireModel")
_new = object.__new__
# A model's slots. `object.__setattr__` looks each up by its name, which is a third of what it takes to make one.
_set_values, _set_given, _set_extra, _set_private = (
    BaseModel.__dict__[slot].__set__
    for slot in ("__dict__", "__pydantic_fields_set__", "__pydantic_extra__", "__pydantic_private__")
)


def _rfc_3339(value: object) -> object:
    # Left to itself pydantic also reads 1700000000, "1700000000" and "2026-01-01": three guesses at what was meant.
    if isinstance(value, datetime) or (isinstance(value, str) and _RFC_3339.fullmatch(value)):
        return value
    raise ValueError("must be an RFC 3339 instant with an offset, such as 2026-01-31T12:00:00Z")


def _within_years(value: datetime) -> datetime:
    if value.tzinfo is None:
        raise ValueError("an offset is missing, such as `Z`")
    # Year 1 with an offset of +14:00 has no instant in UTC, and converting it raises OverflowError far from here.
    if value.year not in _YEARS:
        raise ValueError("must lie between the years 1970 and 9998")
    return value


RunId = Annotated[str, StringConstraints(pattern=RUN_ID_PATTERN)]
SessionId = Annotated[str, StringConstraints(min_length=1, max_length=MAX_SESSION_ID)]
Instant = Annotated[datetime, BeforeValidator(_rfc_3339), AfterValidator(_within_years)]
Int = Annotated[int, Strict()]
"""A JSON integer: neither "5" nor 5.0 nor true."""
Flag = Annotated[bool, Strict()]
"""A JSON boolean: neither "yes" nor 1."""
Metadata = Annotated[dict[Annotated[str, StringConstraints(max_length=128)], str], Field(max_length=64)]


class WireModel(BaseModel):
    """A frozen value on the wire. Readers ignore fields they do not know, so writers may add optional ones.

    Scalars are strict (`Int`, `Flag`, `Instant`), arrays may be any sequence: JSON has no tuples.
    """

    model_config = ConfigDict(frozen=True, extra="ignore", strict=False, ser_json_inf_nan="null")

    def to_bytes(self) -> bytes:
        """UTF-8 JSON. Absent optional fields are left out: a reader must not tell `null` from absent.

        Never raises for a lone surrogate, which agents do produce (a JavaScript string cut in the middle of an emoji):
        it is written as U+FFFD, since UTF-8 has no place for it and one such character would cost the whole result.
        """
        try:
            # `model_dump_json` decodes what this gives, only for it to be encoded again: 0.6 µs, seven times a run.
            return self.__pydantic_serializer__.to_json(self, exclude_none=True)
        except PydanticSerializationError:
            clean = type(self).model_validate(without_lone_surrogates(self.model_dump(exclude_none=True)))
            return clean.model_dump_json(exclude_none=True).encode()

    def with_values(self, **values: object) -> Self:
        """The same with other values, which are not checked: `model_copy(update=…)` at half its price."""
        return self._of_valid({**self.__dict__, **values}, {*self.__pydantic_fields_set__, *values})

    @classmethod
    def _of_valid(cls, values: dict[str, object], given: set[str]) -> Self:
        """Of one valid value for every field; nothing is checked or copied. `model_construct` is slower."""
        made = _new(cls)
        _set_values(made, values)
        _set_given(made, given)
        _set_extra(made, None)
        _set_private(made, None)
        return made


def unchecked(model: Callable[P, AnyWireModel]) -> Callable[P, AnyWireModel]:
    """The constructor of a model, given as its class, without its checks, in half the time. All fields count as given.

    For values of our own making, whose types mypy has checked; what comes from outside needs the checks. Make it once:
    `_turn_started = unchecked(TurnStarted)`.
    """
    kind = cast("type[AnyWireModel]", model)
    fields = kind.model_fields
    given, defaults = set(fields), {name: field.default for name, field in fields.items()}
    anew = [(name, field) for name, field in fields.items() if field.default_factory is not None]

    def make(*_: P.args, **values: P.kwargs) -> AnyWireModel:
        all_values: dict[str, object] = {**defaults, **values}
        for name, field in anew:
            if name not in values:
                all_values[name] = field.get_default(call_default_factory=True)
        # What `_of_valid` does, without the call: a fifth of all that is left.
        made = _new(kind)
        _set_values(made, all_values)
        _set_given(made, given)
        _set_extra(made, None)
        _set_private(made, None)
        return made

    return make


def without_lone_surrogates(value: T) -> T:
    """The same JSON-like value with each lone surrogate replaced by U+FFFD; pairs that were split are joined."""
    clean: object = value
    if isinstance(value, str):
        clean = value.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    elif isinstance(value, dict):
        clean = {without_lone_surrogates(key): without_lone_surrogates(item) for key, item in value.items()}
    elif isinstance(value, list | tuple):
        clean = type(value)(without_lone_surrogates(item) for item in value)
    return clean  # type: ignore[return-value]  # a str for a str, a dict for a dict
