"""The language of `--fail-if`: one comparison, which fails the change if it holds.

    rule       = metric ("<" | ">") side ["at" NUMBER "%"]
    metric     = "errors" | "pass_rate" | FUNCTION "(" EVALUATOR ")"
    function   = "pass_rate" | "mean" | "median" | "p90" | "p95" | "p99" | "pass@" K
    side       = NUMBER ["%"] | [NUMBER "*"] "baseline" [("+" | "-") NUMBER]

    pass_rate(exact) < baseline - 0.02 at 95%
    mean(latency) > 1.2 * baseline at 95%
    errors > 5%

"at 95%" means one thing for every metric: the change fails only if the one-sided 95 % confidence bound of
(metric − side) lies beyond 0 as well. Without it the figures that were seen decide.
"""

import re
from dataclasses import dataclass
from typing import Final, Literal, Never

from agentstream.consumers.replay.comparing.answers import ComparisonError

Function = Literal["pass_rate", "mean", "median", "p90", "p95", "p99", "pass@"]
QUANTILES: Final[dict[str, float]] = {"median": 0.5, "p90": 0.9, "p95": 0.95, "p99": 0.99}
_FUNCTIONS: Final = ("pass_rate", "mean", *QUANTILES)
# A name may hold a minus (json-schema), but `baseline-0.02` is a difference.
_TOKEN = re.compile(r"\s*(?:(\d+(?:\.\d+)?|\.\d+)|((?<!\()baseline(?=-[\d.])|[A-Za-z_][\w-]*(?:@\d+)?)|(.))", re.DOTALL)


class RuleError(ComparisonError):
    """A rule that cannot be read; its text shows the place."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Rule:
    """One rule."""

    text: str
    """As it was written."""
    function: str
    """pass_rate, mean, median, p90, p95, p99 or pass@."""
    k: int | None = None
    """The k of pass@k."""
    evaluator: str | None
    """The evaluator; None: the only one that passes or fails."""
    operator: Literal["<", ">"]
    """Below or above is bad."""
    factor: float
    """What the baseline is multiplied by; 0: the rule has no baseline."""
    margin: float
    """What is added to it."""
    confidence: float | None = None
    """Such as 0.95; None: the figures that were seen decide."""


def parse_rule(text: str) -> Rule:
    """Read a rule. Raises RuleError, with the place and what was expected there."""
    return _Parser(text).rule()


@dataclass(frozen=True, slots=True)
class _Token:
    kind: Literal["number", "name", "sign", "end"]
    text: str
    place: int


class _Parser:
    def __init__(self, text: str) -> None:
        self._text = text
        self._tokens = self._split(text)
        self._at = 0

    def rule(self) -> Rule:
        function, k, evaluator = self._metric()
        operator = self._expect("<", ">")
        factor, margin = self._side()
        if function in {"pass_rate", "pass@"} or evaluator == "errors":
            self._check_share(operator, factor, margin)
        confidence = None
        if self._next.text == "at":
            self._take()
            confidence = self._confidence()
        if self._next.kind != "end":
            self._refuse("the end, or `at 95%`")
        return Rule(
            text=self._text.strip(),
            function=function,
            k=k,
            evaluator=evaluator,
            operator="<" if operator == "<" else ">",
            factor=factor,
            margin=margin,
            confidence=confidence,
        )

    def _metric(self) -> tuple[str, int | None, str | None]:
        name = self._next
        if name.text == "errors":
            self._take()
            return "mean", None, "errors"
        function, at, k = name.text.partition("@")
        known = name.text in _FUNCTIONS or (function == "pass" and at and int(k) > 0)
        if name.kind != "name" or not known:
            self._refuse("errors, pass_rate, pass_rate(…), mean(…), median(…), p90(…), p95(…), p99(…) or pass@k(…)")
        self._take()
        if self._next.text != "(":
            if name.text != "pass_rate":
                self._refuse(f"`(` and an evaluator: {name.text}(latency)")
            return "pass_rate", None, None
        self._take()
        evaluator = self._next
        if evaluator.kind != "name":
            self._refuse("the name of an evaluator")
        self._take()
        self._expect(")")
        return ("pass@", int(k), evaluator.text) if at else (name.text, None, evaluator.text)

    def _side(self) -> tuple[float, float]:
        factor = 1.0
        if self._next.kind == "number":
            number, percent = self._number()
            if self._next.text != "*" or percent:
                return 0.0, number
            self._take()
            factor = number
        if self._next.text != "baseline":
            self._refuse("`baseline`" if factor != 1.0 else "a number, or `baseline`")
        self._take()
        if self._next.text not in {"+", "-"}:
            return factor, 0.0
        sign = -1.0 if self._take().text == "-" else 1.0
        if self._next.kind != "number":
            self._refuse("a number")
        margin = float(self._take().text)
        if self._next.text == "%":
            # 20 % of what? "baseline + 20%" would be 0.2 seconds to us, and a fifth more to whoever wrote it.
            self._refuse("a plain number (`- 0.02` is 2 points of a pass rate), or a factor: `1.2 * baseline`")
        return factor, sign * margin

    def _check_share(self, operator: str, factor: float, margin: float) -> None:
        # `errors > 5`, the % forgotten, can never hold: a gate that lets everything pass. Nor can `< baseline - 2`.
        last = next((token for token in reversed(self._tokens[: self._at]) if token.kind == "number"), None)
        if factor == 0.0 and not (0.0 <= margin < 1.0 if operator == ">" else 0.0 < margin <= 1.0):
            self._refuse("a share between 0 and 1, such as 0.05 or 5%, on either side of which it can lie", last)
        if factor != 0.0 and abs(margin) >= 1.0:
            self._refuse("less than 1: `baseline - 0.02` is 2 points of a share", last)

    def _confidence(self) -> float:
        token = self._next
        if token.kind != "number":
            self._refuse("a number and `%`, such as 95%")
        value = float(self._take().text)
        self._expect("%")
        if not 50.0 < value < 100.0:
            self._refuse("between 50% and 100%", token)
        return value / 100.0

    def _number(self) -> tuple[float, bool]:
        value = float(self._take().text)
        if self._next.text == "%":
            self._take()
            return value / 100.0, True
        return value, False

    @property
    def _next(self) -> _Token:
        return self._tokens[self._at]

    def _take(self) -> _Token:
        token = self._next
        self._at = min(self._at + 1, len(self._tokens) - 1)
        return token

    def _expect(self, *signs: str) -> str:
        if self._next.text not in signs:
            self._refuse(" or ".join(f"`{sign}`" for sign in signs))
        return self._take().text

    def _refuse(self, expected: str, at: _Token | None = None) -> Never:
        token = at or self._next
        found = f"`{token.text}`" if token.kind != "end" else "the end"
        raise RuleError(
            f"rule `{self._text.strip()}`, character {token.place + 1}: found {found} where this belongs: {expected}"
        )

    @staticmethod
    def _split(text: str) -> list[_Token]:
        tokens: list[_Token] = []
        stripped = text.rstrip()
        place = 0
        while match := _TOKEN.match(stripped, place):
            group = match.lastindex or 3
            kind: Literal["number", "name", "sign"] = "number" if group == 1 else "name" if group == 2 else "sign"
            tokens.append(_Token(kind, match[group], match.start(group)))
            place = match.end()
        return [*tokens, _Token("end", "", len(stripped))]
