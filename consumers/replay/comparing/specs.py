"""`--eval` and evaluator files to evaluators.

kind            exact
kind:argument   contains:hello · regex:^\\d+$ · json-schema:answer.json · tokens:output · cost:EUR
kind:options    numeric:tolerance=0.01,relative=0.001 · tools:order=any,arguments=ignored
module:function a function of one's own
judge:QUESTION  a model answers whether the answer fulfils the question; needs the extra `evals`
name=spec       any of them under a name of one's own
"""

import importlib
import re
import sys
import tomllib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal, cast

from agentstream.consumers.replay.comparing import evaluators as own
from agentstream.consumers.replay.comparing.answers import Better, ComparisonError, Evaluator, NamedEvaluator

DEFAULT_SPECS: Final = ("exact", "tools", "finish_reason", "latency", "tokens", "cost")
"""Without any `--eval`. `errors` is always there."""
_NAMED = re.compile(r"([A-Za-z_][\w-]*)=(.*)", re.DOTALL)
_FUNCTION = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_]\w*")


@dataclass(frozen=True, kw_only=True, slots=True)
class EvaluatorFile:
    """What a file of evaluators says."""

    specs: tuple[str, ...]
    """Evaluators, as for `--eval`."""
    fail_if: tuple[str, ...] = ()
    """Rules, as for `--fail-if`."""


@dataclass(frozen=True, kw_only=True, slots=True)
class _Kind:
    make: Callable[[str | None], Evaluator]
    better: Better | None = "higher"
    unit: str = ""


def read_evaluator_file(path: Path) -> EvaluatorFile:
    """`fail_if = [rules]` and either `evaluators = [specs]` or a table `[evaluators]` of name = spec.

    Raises ComparisonError, which names the file and what is wrong with it.
    """
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ComparisonError(f"{path}: {error}") from None
    if unknown := sorted(set(content) - {"evaluators", "fail_if"}):
        raise ComparisonError(f"{path}: {unknown[0]} is neither `evaluators` nor `fail_if`")
    given, rules = content.get("evaluators", []), content.get("fail_if", [])
    specs = [f"{name}={spec}" for name, spec in given.items()] if isinstance(given, dict) else given
    for name, value in (("evaluators", specs), ("fail_if", rules)):
        if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
            raise ComparisonError(f"{path}: {name} must be a list of texts")
    return EvaluatorFile(specs=tuple(specs), fail_if=tuple(rules))


def make_evaluators(specs: Sequence[str], *, judge_model: str | None = None) -> tuple[NamedEvaluator, ...]:
    """The evaluators, in order, `errors` last unless it was asked for. Raises ComparisonError.

    Those of one kind are told apart by a number: contains, contains_2.
    """
    made: dict[str, NamedEvaluator] = {}
    for spec in specs or DEFAULT_SPECS:
        one = _make(spec, judge_model)
        if one.name == "errors" and one.spec != "errors":
            # A rule `errors > 5%` would hold something else against 5%.
            raise ComparisonError(f"--eval {spec}: `errors` is always runs that were not completed; name it otherwise")
        count = 2
        name = one.name
        while name in made:
            if _NAMED.fullmatch(spec):
                raise ComparisonError(f"--eval {spec}: there is another evaluator named {one.name}")
            name = f"{one.name}_{count}"
            count += 1
        made[name] = NamedEvaluator(name=name, spec=one.spec, evaluator=one.evaluator, better=one.better, unit=one.unit)
    if "errors" not in made:
        made["errors"] = _make("errors", None)
    return tuple(made.values())


def _make(given: str, judge_model: str | None) -> NamedEvaluator:
    named = _NAMED.fullmatch(given)
    name, spec = (named[1], named[2]) if named else (None, given)
    kind, colon, rest = spec.partition(":")
    argument = rest if colon else None
    if kind == "judge":
        from agentstream.consumers.replay.comparing.judging import judge

        return NamedEvaluator(name=name or kind, spec=spec, evaluator=judge(rest, model=judge_model))
    if known := _KINDS.get(kind):
        try:
            evaluator = known.make(argument)
        except (ValueError, TypeError) as error:
            raise ComparisonError(f"--eval {given}: {error}") from None
        unit = argument or "USD" if kind == "cost" else known.unit
        return NamedEvaluator(name=name or kind, spec=spec, evaluator=evaluator, better=known.better, unit=unit)
    if _FUNCTION.fullmatch(spec):
        return NamedEvaluator(name=name or rest, spec=spec, evaluator=_function(kind, rest))
    raise ComparisonError(f"--eval {given}: unknown; there are {', '.join(_KINDS)}, judge and module:function")


def _function(module: str, name: str) -> Evaluator:
    """A function, or a pydantic-evals evaluator, of the caller's own; modules of the working directory are found."""
    here = str(Path.cwd())
    sys.path.insert(0, here)
    try:
        found = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError) as error:
        raise ComparisonError(f"--eval {module}:{name}: {error}") from None
    except (Exception, SystemExit) as error:
        # Somebody else's module: what it raises while it is read, a SyntaxError above all, is no bug of ours.
        raise ComparisonError(f"--eval {module}:{name}: {type(error).__name__}: {error}") from error
    finally:
        sys.path.remove(here)
    if hasattr(found, "evaluate"):
        from agentstream.consumers.replay.comparing.judging import adapted

        return adapted(found() if isinstance(found, type) else found)
    if not callable(found):
        raise ComparisonError(f"--eval {module}:{name}: is no function")
    return cast("Evaluator", found)


def _options(argument: str | None, allowed: Mapping[str, Sequence[str] | None]) -> dict[str, str]:
    given: dict[str, str] = {}
    for item in (argument or "").split(","):
        if not item.strip():
            continue
        name, equals, value = (text.strip() for text in item.partition("="))
        if not equals or name not in allowed:
            raise ValueError(f"`{item.strip()}` is none of {', '.join(f'{option}=…' for option in allowed)}")
        choices = allowed[name]
        if choices is not None and value not in choices:
            raise ValueError(f"{name} is one of {', '.join(choices)}")
        given[name] = value
    return given


def _numeric(argument: str | None) -> Evaluator:
    given = {name: float(value) for name, value in _options(argument, {"tolerance": None, "relative": None}).items()}
    return own.numeric(**given)


def _tools(argument: str | None) -> Evaluator:
    given = _options(argument, {"order": ("strict", "any"), "arguments": ("same", "ignored")})
    order = cast("Literal['strict', 'any']", given.get("order", "strict"))
    return own.tools(order=order, arguments=cast("Literal['same', 'ignored']", given.get("arguments", "same")))


def _tokens(argument: str | None) -> Evaluator:
    if argument not in {None, "all", "input", "output"}:
        raise ValueError("tokens, tokens:input or tokens:output")
    return own.tokens(cast("Literal['all', 'input', 'output']", argument or "all"))


def _needed(argument: str | None, what: str) -> str:
    if not argument:
        raise ValueError(f"needs {what}")
    return argument


def _bare(evaluator: Evaluator) -> Callable[[str | None], Evaluator]:
    def make(argument: str | None) -> Evaluator:
        if argument is not None:
            raise ValueError(f"takes nothing, not `{argument}`")
        return evaluator

    return make


_KINDS: Final[Mapping[str, _Kind]] = {
    "exact": _Kind(make=_bare(own.exact)),
    "contains": _Kind(make=lambda argument: own.contains(argument or None)),
    "regex": _Kind(make=lambda argument: own.regex(_needed(argument, "a pattern: regex:^yes"))),
    "json-schema": _Kind(make=lambda argument: own.json_schema(Path(_needed(argument, "a file")))),
    "numeric": _Kind(make=_numeric),
    "tools": _Kind(make=_tools),
    "finish_reason": _Kind(make=lambda argument: own.finish_reason(argument or None)),
    "latency": _Kind(make=_bare(own.latency), better="lower", unit="s"),
    "tokens": _Kind(make=_tokens, better="lower", unit="tokens"),
    "cost": _Kind(make=lambda argument: own.cost(argument or "USD"), better="lower", unit="USD"),
    "errors": _Kind(make=_bare(own.errors), better="lower"),
}
