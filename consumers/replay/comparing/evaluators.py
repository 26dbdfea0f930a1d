"""The evaluators that need nothing but the two results. Each is a plain function of an `Answer`, or makes one."""

import json
import re
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from typing import Literal

from pydantic import JsonValue

from agentstream.consumers.replay.comparing.answers import Answer, ComparisonError, Score, tool_calls

Plain = Callable[[Answer], Score | None]
_NUMBER = re.compile(r"[-+]?\d[\d,]*(?:\.\d+)?(?:[eE][-+]?\d+)?")
_SHOWN = 120


def exact(answer: Answer) -> Score | None:
    """The same text as the reference, white space at the ends aside; a reference that is not text: the same JSON."""
    reference = answer.reference
    if reference is None:
        return None
    if isinstance(reference, str):
        return _judged(answer, answer.text.strip() == reference.strip(), "another text")
    try:
        said: JsonValue = json.loads(answer.text)
    except ValueError:
        return Score(passed=False, explanation="the answer is not JSON")
    return _judged(answer, canonical(said) == canonical(reference), "another JSON value")


def contains(text: str | None) -> Plain:
    """The answer contains this text, or the reference where none is given."""

    def evaluate(answer: Answer) -> Score | None:
        wanted = text if text is not None else answer.reference
        if wanted is None:
            return None
        if not isinstance(wanted, str):
            raise TypeError(f"the expected answer is no text that could be contained: {canonical(wanted)[:_SHOWN]}")
        return _judged(answer, wanted in answer.text, f"does not contain {wanted[:_SHOWN]!r}")

    return evaluate


def regex(pattern: str) -> Plain:
    """The pattern is found somewhere in the answer."""
    try:
        compiled = re.compile(pattern)
    except re.error as error:
        raise ComparisonError(f"regex:{pattern}: {error}") from None
    return lambda answer: _judged(answer, compiled.search(answer.text) is not None, f"no match of {pattern!r}")


def json_schema(path: Path) -> Plain:
    """The answer is JSON that fits the schema in this file; a ```json fence around it is taken off."""
    from jsonschema import SchemaError
    from jsonschema.validators import validator_for

    try:
        schema = json.loads(path.read_text(encoding="utf-8"))
        kind = validator_for(schema)
        kind.check_schema(schema)
    except (OSError, ValueError, SchemaError) as error:
        raise ComparisonError(f"json-schema:{path}: {str(error).splitlines()[0]}") from None
    validator = kind(schema)

    def evaluate(answer: Answer) -> Score:
        text = re.sub(r"\A\s*```(?:json)?\s*\n(.*?)\n?```\s*\Z", r"\1", answer.text, flags=re.DOTALL)
        try:
            said = json.loads(text)
        except ValueError as error:
            return Score(passed=False, explanation=f"not JSON: {error}")
        problem = next(iter(validator.iter_errors(said)), None)
        where = "" if problem is None else f"{problem.json_path}: {problem.message}"[:_SHOWN]
        return _judged(answer, problem is None, where)

    return evaluate


def numeric(*, tolerance: float = 0.0, relative: float = 0.0) -> Plain:
    """The last number of the answer is the last number of the reference, within either tolerance.

    Decimal, since 42.1 is within 0.1 of 42 for whoever writes that, and not as floats.
    """
    absolute, share = Decimal(str(tolerance)), Decimal(str(relative))

    def evaluate(answer: Answer) -> Score | None:
        if answer.reference is None:
            return None
        wanted = _number(answer.reference)
        if wanted is None:
            raise ValueError("the reference has no number")
        said = _number(answer.text)
        close = said is not None and abs(said - wanted) <= max(absolute, share * abs(wanted))
        return _judged(answer, close, f"{said} instead of {wanted}")

    return evaluate


def tools(*, order: Literal["strict", "any"] = "strict", arguments: Literal["same", "ignored"] = "same") -> Plain:
    """The same tool calls as were recorded: names, arguments, order."""

    def evaluate(answer: Answer) -> Score | None:
        if answer.case.result is None:
            return None
        recorded, called = (
            [f"{call.name}({'' if arguments == 'ignored' else canonical(call.arguments)})" for call in calls]
            for calls in (tool_calls(answer.case.result), answer.tool_calls)
        )
        if order == "any":
            recorded, called = sorted(recorded), sorted(called)
        differing = next(
            (place for place in range(max(len(recorded), len(called))) if recorded[place:][:1] != called[place:][:1]),
            None,
        )
        if differing is None:
            return _judged(answer, True, "")
        was, now = (next(iter(calls[differing:]), "nothing")[:_SHOWN] for calls in (recorded, called))
        return Score(passed=False, explanation=f"call {differing + 1}: {now} instead of {was}")

    return evaluate


def finish_reason(wanted: str | None) -> Plain:
    """The model stopped for this reason, or for the recorded one where none is given."""

    def evaluate(answer: Answer) -> Score | None:
        right = wanted or (answer.case.result.finish_reason if answer.case.result is not None else None)
        said = answer.result.finish_reason
        return None if right is None else Score(passed=said == right, explanation=f"{said}" if said != right else None)

    return evaluate


def latency(answer: Answer) -> Score | None:
    """Seconds from the attempt's beginning to the run's end."""
    return None if answer.seconds is None else Score(value=answer.seconds)


def tokens(which: Literal["all", "input", "output"] = "all") -> Plain:
    """Tokens read and written, over all models of the run. A run without usage says nothing, rather than 0."""

    def evaluate(answer: Answer) -> Score | None:
        if not answer.result.usage:
            return None
        read = sum(usage.input_tokens for usage in answer.result.usage)
        written = sum(usage.output_tokens for usage in answer.result.usage)
        return Score(value=float({"all": read + written, "input": read, "output": written}[which]))

    return evaluate


def cost(currency: str = "USD") -> Plain:
    """What the run cost; nothing where that is unknown. Another currency is an error: amounts would not add up."""

    def evaluate(answer: Answer) -> Score | None:
        found = answer.result.cost
        if found is not None and found.currency != currency:
            raise ValueError(f"the cost is in {found.currency}: say --eval cost:{found.currency}")
        return None if found is None else Score(value=float(Decimal(found.amount)))

    return evaluate


def errors(answer: Answer) -> Score:
    """1 for a run that was not completed, else 0."""
    if answer.result.status == "completed":
        return Score(value=0.0)
    problem = answer.result.error
    why = answer.result.status if problem is None else f"{problem.code.value}: {problem.detail or problem.title}"
    return Score(value=1.0, explanation=why[:_SHOWN])


def canonical(value: JsonValue) -> str:
    """JSON with one spelling: keys sorted, no white space, 1.0 as 1."""

    def plain(node: JsonValue) -> JsonValue:
        if isinstance(node, float) and node.is_integer() and abs(node) < 2**53:
            return int(node)
        if isinstance(node, dict):
            return {key: plain(item) for key, item in node.items()}
        return [plain(item) for item in node] if isinstance(node, list) else node

    return json.dumps(plain(value), sort_keys=True, separators=(",", ":"), ensure_ascii=False)


def _judged(answer: Answer, right: bool, why_not: str) -> Score:
    """A run that was not completed has no right answer, whatever it said before it ended."""
    if answer.result.status != "completed":
        return Score(passed=False, explanation=errors(answer).explanation)
    return Score(passed=right, explanation=None if right else why_not)


def _number(value: JsonValue) -> Decimal | None:
    if isinstance(value, bool):
        return None
    if isinstance(value, int | float):
        return Decimal(str(value))
    found = _NUMBER.findall(value) if isinstance(value, str) else []
    return Decimal(found[-1].replace(",", "")) if found else None
