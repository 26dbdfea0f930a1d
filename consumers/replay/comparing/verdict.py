"""What rules say of a comparison: passed, failed, or could not be judged; and the exit code of it."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from agentstream.consumers.replay.comparing.answers import ComparisonError, NamedEvaluator
from agentstream.consumers.replay.comparing.bounds import Figure, bounds_of, units_needed
from agentstream.consumers.replay.comparing.columns import Column, Kind, column, kind_of
from agentstream.consumers.replay.comparing.comparison import Comparison
from agentstream.consumers.replay.comparing.evidence import EvaluatorLine
from agentstream.consumers.replay.comparing.rules import QUANTILES, Rule
from agentstream.consumers.replay.words import counted

State = Literal["passed", "failed", "not_judged"]
EXIT_CODES: dict[State, int] = {"passed": 0, "failed": 1, "not_judged": 2}
MAX_LEFT_OUT = 0.1
"""Of the cases, how many may lack a side before a rule is not judged: what is not seen could be what is bad."""
FEW_CLUSTERS = 20


@dataclass(frozen=True, kw_only=True, slots=True)
class RuleVerdict:
    """What one rule says."""

    rule: str
    """The rule as it was written."""
    state: State
    """Whether the change passed it."""
    why: str
    """In one line, with the figures."""
    metric: float | None = None
    """The metric on the candidate's side."""
    limit: float | None = None
    """What it is held against."""
    bound: float | None = None
    """One-sided confidence bound of (metric − limit): an upper one for `<`, a lower one for `>`."""
    cases: int = 0
    """Cases that counted."""
    clusters: int = 0
    """Sessions they are of."""
    needed: int | None = None
    """How many independent cases the rule needs, where there are too few."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Verdict:
    """What all rules say."""

    rules: tuple[RuleVerdict, ...]
    """One for each rule."""

    @property
    def state(self) -> State:
        """Failed if any rule is; else not judged if any is not; else passed."""
        states = {one.state for one in self.rules}
        return "failed" if "failed" in states else "not_judged" if "not_judged" in states else "passed"

    @property
    def exit_code(self) -> int:
        """0 passed, 1 failed, 2 could not be judged."""
        return EXIT_CODES[self.state]


def judge_rules(comparison: Comparison, rules: Sequence[Rule], *, max_left_out: float = MAX_LEFT_OUT) -> Verdict:
    """The verdict. Raises ComparisonError for a rule on an evaluator that is not there."""
    return Verdict(rules=tuple(_judge(comparison, rule, max_left_out) for rule in rules))


def check_rules(evaluators: Sequence[NamedEvaluator | EvaluatorLine], rules: Sequence[Rule]) -> None:
    """Raise ComparisonError, before hours of judging, for a rule on an evaluator that is not among these, or that fails
    what got better.
    """
    known = {one.name: one.better for one in evaluators}
    for rule in rules:
        if rule.evaluator is not None and rule.evaluator not in known:
            raise ComparisonError(
                f"rule `{rule.text}`: there is no evaluator {rule.evaluator}, only {', '.join(known)}; "
                f"add --eval {rule.evaluator}"
            )
        # `errors < baseline`, written as what is wished for, fails every improvement and lets each loss pass. A number
        # of one's own function has no such side: its evaluators are "higher" unless they were told otherwise.
        share = rule.function in {"pass_rate", "pass@"}
        lower = not share and rule.evaluator is not None and known[rule.evaluator] == "lower"
        if rule.operator == ("<" if lower else ">") and (lower or share):
            raise ComparisonError(
                f"rule `{rule.text}`: faces the wrong way: a rule says what fails, and "
                f"{'lower' if lower else 'higher'} is better here; write `{'>' if lower else '<'}`"
            )


def _judge(comparison: Comparison, rule: Rule, max_left_out: float) -> RuleVerdict:
    check_rules(comparison.about.evaluators, [rule])
    pairs = comparison.columns[rule.evaluator or _only_passing(comparison, rule)]
    kind: Kind = "passed" if rule.function in {"pass_rate", "pass@"} else "value"
    found = column(pairs, kind, candidate_only=rule.factor == 0.0, k=rule.k)
    numbers = any(outcome.value is not None for pair in pairs for outcome in pair.candidate)
    if kind == "passed" and numbers and kind_of(pairs) == "value":
        why = f"{rule.evaluator} gives numbers, and neither passes nor fails: use mean({rule.evaluator})"
        return RuleVerdict(rule=rule.text, state="not_judged", why=why)
    if reason := _unusable(found, pairs_there=len(pairs), rule=rule, most=max_left_out):
        return RuleVerdict(rule=rule.text, state="not_judged", why=reason, cases=len(found.worths))
    return _held_against(found, rule, comparison.about.seed)


def _held_against(found: Column, rule: Rule, seed: int) -> RuleVerdict:
    figure = Figure(share=QUANTILES.get(rule.function), factor=rule.factor)
    metric = figure.candidate(found.worths)
    limit = (rule.factor * figure.baseline(found.worths) if rule.factor else 0.0) + rule.margin
    sign = 1.0 if rule.operator == "<" else -1.0
    clusters = len(found.clusters)
    beyond = sign * (metric - limit) < 0.0
    held = f"{metric:.4g} {'is' if beyond else 'is not'} {rule.operator} {limit:.4g}"
    edge: float | None = None
    if rule.confidence is not None:
        needed = units_needed(found, figure, rule)
        if needed is None or clusters < needed:
            there = counted(clusters, "independent case" if found.independent else "independent session")
            why = f"too few: {there}, and at {100 * rule.confidence:.4g}% this rule could not " + (
                "fail with any number" if needed is None else f"fail with fewer than {needed}"
            )
            return RuleVerdict(
                rule=rule.text, state="not_judged", why=why, metric=metric, limit=limit,
                cases=len(found.worths), clusters=clusters, needed=needed,
            )  # fmt: skip
        probability = rule.confidence if rule.operator == "<" else 1.0 - rule.confidence
        edge = bounds_of(found, figure, seed)(probability) - rule.margin
        beyond = sign * edge < 0.0
        side = "at most" if rule.operator == "<" else "at least"
        held += f"; metric − limit is {side} {edge:+.4g} at {100 * rule.confidence:.4g}%"
    if clusters < FEW_CLUSTERS and not found.independent:
        held += "; few sessions: the bound is rough"
    return RuleVerdict(
        rule=rule.text,
        state="failed" if beyond else "passed",
        why=f"{held} ({counted(len(found.worths), 'case')}, {counted(clusters, 'session')})",
        metric=metric,
        limit=limit,
        bound=edge,
        cases=len(found.worths),
        clusters=clusters,
    )


def _unusable(found: Column, *, pairs_there: int, rule: Rule, most: float) -> str | None:
    if not found.worths:
        need = f" with {rule.k} repeats or more" if rule.k is not None else ""
        return f"no case of {pairs_there} has {'an answer' if rule.factor == 0.0 else 'both sides'} to judge{need}"
    if found.left_out_share > most:
        return (
            f"{found.left_out} of {pairs_there} cases could not be counted (no answer, or the evaluator failed or had "
            f"nothing to say), and more than {most:.0%} is too many; --max-left-out allows more, and a recording of "
            "`capture --status completed` holds no failed runs"
        )
    return None


def _only_passing(comparison: Comparison, rule: Rule) -> str:
    passing = [name for name, pairs in comparison.columns.items() if kind_of(pairs) == "passed"]
    if len(passing) == 1:
        return passing[0]
    raise ComparisonError(
        f"rule `{rule.text}`: pass_rate of which evaluator? {', '.join(passing) or 'none passes or fails'}"
    )
