"""The filters of `agentstream dead-letters`: options that its commands share."""

import hashlib
import inspect
import json
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, fields
from functools import wraps
from typing import Annotated, Concatenate, ParamSpec, get_type_hints

import typer

P = ParamSpec("P")


@dataclass(frozen=True, kw_only=True, slots=True)
class Asked:
    """The filters as they were typed; each field is an option, in the order of the help."""

    codes: Annotated[list[str], typer.Option("--code", help="Only this error code; may be repeated.")] = field(
        default_factory=list
    )
    session: Annotated[str | None, typer.Option("--session", help="Only this session.")] = None
    since: Annotated[
        str | None, typer.Option("--since", help="Only since then: 2026-01-31T12:00:00Z, or 90m, 2h, 7d ago.")
    ] = None
    until: Annotated[str | None, typer.Option("--until", help="Only before then, in the same form.")] = None
    headers: Annotated[list[str], typer.Option("--header", help="Only with this header, k=v; may be repeated.")] = (
        field(default_factory=list)
    )
    partition: Annotated[int | None, typer.Option("--partition", min=0, help="Only in this partition.")] = None
    offset: Annotated[int | None, typer.Option("--offset", min=0, help="Only at this offset; wants --partition.")] = (
        None
    )

    @property
    def name(self) -> str:
        """The same for the same filters, in whatever order: a redrive finds its progress under it."""
        ordered = {**asdict(self), "codes": sorted(self.codes), "headers": sorted(self.headers)}
        return hashlib.sha256(json.dumps(ordered).encode()).hexdigest()[:12]

    @property
    def filters(self) -> bool:
        """Whether more is given than a place."""
        return bool(self.codes or self.session or self.since or self.until or self.headers)


def filtered(command: Callable[Concatenate[typer.Context, Asked, P], None]) -> Callable[..., None]:
    """Give a command the filters as options, and call it with what was typed in place of its `asked`.

    typer reads options from a function's signature, so each command would have to repeat all seven.
    """
    options = [
        inspect.Parameter(
            each.name,
            inspect.Parameter.POSITIONAL_OR_KEYWORD,
            default=None if each.default_factory is list else each.default,
            annotation=get_type_hints(Asked, include_extras=True)[each.name],
        )
        for each in fields(Asked)
    ]

    @wraps(command)
    def called(context: typer.Context, *args: P.args, **kwargs: P.kwargs) -> None:
        typed = {each.name: kwargs.pop(each.name) for each in options}
        given = {name: value for name, value in typed.items() if value is not None}
        asked = Asked(**given)  # type: ignore[arg-type]  # typer has made them as the fields say
        command(context, asked, *args, **kwargs)

    context, _, *own = inspect.signature(command, eval_str=True).parameters.values()
    signature = inspect.Signature([context, *options, *own])
    called.__signature__ = signature  # type: ignore[attr-defined]  # what `inspect.signature` looks at
    called.__annotations__ = {each.name: each.annotation for each in signature.parameters.values()}
    return called
