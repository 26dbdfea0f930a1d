"""A comparison in plain lines: a table row for each evaluator, and which cases changed."""

import math
from collections import Counter
from collections.abc import Iterator, Sequence

from agentstream.consumers.replay.comparing.comparison import Comparison
from agentstream.consumers.replay.comparing.summary import EvaluatorSummary, SideSummary
from agentstream.consumers.replay.comparing.verdict import FEW_CLUSTERS, Verdict
from agentstream.consumers.replay.words import counted

COLUMNS = ("evaluator", "baseline", "candidate", "difference (95%)", "better", "worse", "cases", "noise")
STATE_WORDS = {"passed": "passed", "failed": "FAILED", "not_judged": "NOT JUDGED"}
_NAMED = 5


def table_rows(summaries: Sequence[EvaluatorSummary]) -> list[tuple[str, ...]]:
    """One row for each evaluator, under `COLUMNS`. `*` marks a difference whose interval leaves 0 out."""
    return [_row(one) for one in summaries]


def remarks(comparison: Comparison, summaries: Sequence[EvaluatorSummary]) -> Iterator[str]:
    """What stands below the table: what changed, what was left out, how rough the intervals are."""
    for one in summaries:
        yield from _of_evaluator(one)
    reasons = Counter((line.side, line.why) for line in comparison.missing)
    for (side, why), count in reasons.most_common(_NAMED):
        yield f"{counted(count, 'case')} without {side}: {why}"
    if comparison.diverged:
        yield f"{counted(len(comparison.diverged), 'case')} left the recording: {_some(comparison.diverged)}"
    yield from _rough(summaries)
    yield from comparison.about.notes


def _of_evaluator(one: EvaluatorSummary) -> Iterator[str]:
    name = one.evaluator.name
    if one.kind == "passed":
        for word, changed in (("worse", one.worse), ("better", one.better)):
            if changed:
                yield f"{name} {word}: {_some(changed)}"
    if one.mcnemar is not None and (one.better or one.worse):
        yield f"{name}: McNemar's exact test p = {one.mcnemar:.3g}"
    for side, summary in (("baseline", one.baseline), ("candidate", one.candidate)):
        if summary is not None and summary.pass_at:
            yield f"{name} {side}: " + ", ".join(f"pass@{k} {value:.3f}" for k, value in summary.pass_at)
    if one.noise is not None and one.noise.changed:
        low, high = one.noise.interval
        share = _is_share(one)
        changes = (
            f"{100 * one.noise.changed:.1f}% change from one play of the baseline to another, and "
            f"{100 * one.noise.candidate_changed:.1f}% from the baseline to the candidate; "
        )
        yield (
            f"{name}: noise: {changes if share else ''}the baseline's plays differ by "
            f"{_signed(one.noise.difference, share=share)} [{figure(low, share=share)}, {figure(high, share=share)}] "
            f"({counted(one.noise.cases, 'case')})"
        )
    if one.failures:
        which = "which is not counted" if one.failures == 1 else "which are not counted; the first"
        yield f"{name}: failed on {counted(one.failures, 'answer')}, {which}: {one.first_failure}"
    if one.only_numbers:
        many = counted(one.only_numbers, "answer")
        yield f"{name}: gave only a number for {many}, not counted since it passes or fails others"


def _rough(summaries: Sequence[EvaluatorSummary]) -> Iterator[str]:
    """Once for all evaluators that have the same cases: nine lines that said the same hid the one that did not."""
    found: dict[tuple[int, int], list[str]] = {}
    for one in summaries:
        if 0 < one.clusters < one.cases and one.clusters < FEW_CLUSTERS:
            found.setdefault((one.cases, one.clusters), []).append(one.evaluator.name)
    for (cases, clusters), names in found.items():
        whose = (
            "all intervals are"
            if len(names) == sum(one.cases > 0 for one in summaries)
            else f"the intervals of {', '.join(names)} are"
        )
        yield f"{counted(cases, 'case')} of only {counted(clusters, 'session')}: {whose} rough"


def _some(names: Sequence[str]) -> str:
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    return ", ".join(names[:_NAMED]) + more


def verdict_lines(verdict: Verdict) -> Iterator[str]:
    """A line for each rule, then one for all of them."""
    for one in verdict.rules:
        yield f"{STATE_WORDS[one.state]}: {one.rule}: {one.why}"
    if verdict.rules:
        yield f"verdict: {STATE_WORDS[verdict.state]}"


def figure(value: float, *, share: bool) -> str:
    """A number as people read it; `?` for the edge of an interval that one session cannot give."""
    if math.isinf(value):
        return "?"
    return f"{100 * value:.1f}%" if share else f"{value:.4g}"


def _signed(value: float, *, share: bool) -> str:
    return ("+" if value > 0 else "") + figure(value, share=share)


def _is_share(one: EvaluatorSummary) -> bool:
    return one.kind == "passed" or one.evaluator.name == "errors"


def _noise(one: EvaluatorSummary) -> str:
    """Of shares how many outcomes change, of numbers by how much: all latencies change from one play to another."""
    if one.noise is None:
        return "–"
    if _is_share(one):
        return f"{100 * one.noise.changed:.1f}% change"
    low, high = one.noise.interval
    return f"[{figure(low, share=False)}, {figure(high, share=False)}]"


def _row(one: EvaluatorSummary) -> tuple[str, ...]:
    share = _is_share(one)
    unit = one.evaluator.unit
    # `tokens (tokens)` says it twice.
    name = f"{one.evaluator.name} ({unit})" if unit and unit != one.evaluator.name else one.evaluator.name
    cases = f"{one.cases}" + (f" (−{one.left_out})" if one.left_out else "")
    if one.baseline is None or one.candidate is None:
        alone = "–" if one.candidate is None else _side(one.candidate, share=share)
        return (name, "–", alone, "–", "–", "–", cases, "–")
    low, high = (figure(edge, share=share) for edge in one.interval)
    mark = " *" if one.is_clear else ""
    return (
        name,
        _side(one.baseline, share=share),
        _side(one.candidate, share=share),
        f"{_signed(one.difference, share=share)} [{low}, {high}]{mark}",
        str(len(one.better)),
        str(len(one.worse)),
        cases,
        _noise(one),
    )


def _side(side: SideSummary, *, share: bool) -> str:
    shown = figure(side.mean, share=share)
    if side.interval is None:
        return shown
    low, high = (figure(edge, share=share) for edge in side.interval)
    return f"{shown} [{low}, {high}]"
