"""The language of rules, and what they say of comparisons."""

import re
from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import given as given_any
from hypothesis import strategies as st

from agentstream.consumers.replay.comparing.answers import Answer, ComparisonError, NamedEvaluator
from agentstream.consumers.replay.comparing.report import Report
from agentstream.consumers.replay.comparing.rules import RuleError, parse_rule
from agentstream.consumers.replay.comparing.verdict import RuleVerdict
from tests.support.comparisons import case, given, report, result

EXACT = "pass_rate(exact) < baseline - 0.02 at 95%"


async def judged(
    tmp_path: Path, rule: str, *, cases: int, worse: int, lost: int = 0, session: str | None = None
) -> Report:
    """So many cases, of which so many are answered in another way, and so many not at all."""
    recorded = [case(f"r{n}", result("right"), session=session) for n in range(cases)]
    answers = {f"r{n}": [result("wrong" if n < worse else "right", seconds=3.0)] for n in range(cases - lost)}
    return await report(recorded, given(answers), out=tmp_path, evaluators=["exact", "latency"], fail_if=[rule])


def only(made: Report) -> RuleVerdict:
    (one,) = made.verdict.rules
    return one


@pytest.mark.parametrize(
    ("text", "meaning"),
    [
        (EXACT, ("pass_rate", None, "exact", "<", 1.0, -0.02, 0.95)),
        ("mean(latency) > 1.2 * baseline at 99.5%", ("mean", None, "latency", ">", 1.2, 0.0, 0.995)),
        ("errors > 5%", ("mean", None, "errors", ">", 0.0, 0.05, None)),
        ("errors>.05", ("mean", None, "errors", ">", 0.0, 0.05, None)),
        ("pass_rate < baseline", ("pass_rate", None, None, "<", 1.0, 0.0, None)),
        ("pass@3(exact) < 0.9", ("pass@", 3, "exact", "<", 0.0, 0.9, None)),
        ("errors>baseline+0.02", ("mean", None, "errors", ">", 1.0, 0.02, None)),
        ("pass_rate(baseline-2)<0.9*baseline-.02", ("pass_rate", None, "baseline-2", "<", 0.9, -0.02, None)),
        ("p95(my-own_2) > 2 * baseline + 0.5", ("p95", None, "my-own_2", ">", 2.0, 0.5, None)),
    ],
)
def test_a_rule_says_one_thing(text: str, meaning: tuple[object, ...]) -> None:
    rule = parse_rule(text)
    found = (rule.function, rule.k, rule.evaluator, rule.operator, rule.factor, rule.margin, rule.confidence)
    assert found == meaning


@pytest.mark.parametrize(
    ("text", "place", "expected"),
    [
        ("", 1, "errors, pass_rate"),
        ("speed(x) > 1", 1, "errors, pass_rate"),
        ("mean > 1", 6, "`(` and an evaluator: mean(latency)"),
        ("mean() > 1", 6, "name of an evaluator"),
        ("mean(latency > 1", 14, "`)`"),
        ("mean(latency) = 1", 15, "`<` or `>`"),
        ("errors > 5", 10, "such as 0.05 or 5%"),
        ("errors > 100% at 95%", 10, "a share between 0 and 1"),
        ("pass_rate(exact) < 90", 20, "a share between 0 and 1"),
        ("pass@2(exact) < 0", 17, "a share between 0 and 1"),
        ("pass_rate(exact) < baseline - 2", 31, "less than 1: `baseline - 0.02` is 2 points"),
        ("errors > 0.5 * baseline + 5 at 95%", 27, "less than 1"),
        ("mean(latency) >= 1", 16, "a number, or `baseline`"),
        ("mean(latency) > 1.2 * 3", 23, "`baseline`"),
        ("mean(latency) > baseline + 20%", 30, "1.2 * baseline"),
        ("errors > 0.05 at 95", 20, "`%`"),
        ("errors > 0.05 at 0.95%", 18, "between 50% and 100%"),
        ("errors > 0.05 or else", 15, "the end"),
    ],
)
def test_what_cannot_be_read_is_refused_with_its_place(text: str, place: int, expected: str) -> None:
    with pytest.raises(RuleError) as refused:
        parse_rule(text)
    assert f"character {place}:" in str(refused.value)
    assert expected in str(refused.value)


@given_any(st.text(alphabet=" <>()%*+-.@0159baselinpmt_rx", max_size=40))
def test_any_text_is_a_rule_or_refused_with_its_place(text: str) -> None:
    said = None
    try:
        parse_rule(text)
    except RuleError as error:
        said = str(error)
    assert said is None or "character" in said


async def test_a_loss_beyond_the_margin_fails_and_one_that_could_be_chance_passes(tmp_path: Path) -> None:
    made = [await judged(tmp_path, EXACT, cases=200, worse=worse) for worse in (30, 4)]
    assert [one.verdict.state for one in made] == ["failed", "passed"]
    assert [one.verdict.exit_code for one in made] == [1, 0]
    assert made[0].summaries[0].worse == tuple(f"r{n}" for n in range(30))


async def test_without_a_confidence_the_figures_decide(tmp_path: Path) -> None:
    made = await judged(tmp_path, "pass_rate(exact) < baseline - 0.019", cases=200, worse=4)
    assert only(made).state == "failed"


async def test_what_got_exactly_as_bad_as_allowed_passes(tmp_path: Path) -> None:
    made = await judged(tmp_path, "errors > 0 at 95%", cases=20, worse=0)
    assert only(made).state == "passed"


async def test_too_few_cases_say_how_many_it_takes(tmp_path: Path) -> None:
    made = await judged(tmp_path, EXACT, cases=4, worse=4)
    one = only(made)
    assert (one.state, one.needed, made.verdict.exit_code) == ("not_judged", 5, 2)
    assert "fewer than 5" in one.why
    assert only(await judged(tmp_path, EXACT, cases=5, worse=5)).state == "failed"


async def test_many_cases_of_one_session_are_one_case(tmp_path: Path) -> None:
    one = only(await judged(tmp_path, EXACT, cases=50, worse=50, session="the same"))
    assert (one.state, one.clusters) == ("not_judged", 1)


async def test_a_slowdown_is_a_ratio_of_means(tmp_path: Path) -> None:
    slower = await judged(tmp_path, "mean(latency) > 2.9 * baseline at 95%", cases=10, worse=0)
    allowed = await judged(tmp_path, "mean(latency) > 3.1 * baseline at 95%", cases=10, worse=0)
    assert (only(slower).state, only(allowed).state) == ("failed", "passed")


async def test_cases_without_an_answer_are_not_passed_over(tmp_path: Path) -> None:
    made = await judged(tmp_path, EXACT, cases=40, worse=0, lost=10)
    assert (only(made).state, made.verdict.exit_code) == ("not_judged", 2)
    assert "10 of 40 cases" in only(made).why
    assert "--max-left-out allows more, and a recording of `capture --status completed`" in only(made).why
    assert only(await judged(tmp_path, EXACT, cases=40, worse=0, lost=4)).state == "passed"


async def test_a_pass_rate_of_numbers_says_what_to_write_instead(tmp_path: Path) -> None:
    one = only(await judged(tmp_path, "pass_rate(latency) < 0.5", cases=10, worse=0))
    assert (one.state, "use mean(latency)" in one.why) == ("not_judged", True)


async def test_an_evaluator_that_raises_is_told_with_what_it_raised_and_leaves_the_rule_open(tmp_path: Path) -> None:
    cases = [case("r0", result("right"))]
    rule = "pass_rate(broken) < baseline"
    raising = NamedEvaluator(name="broken", spec="broken", evaluator=_raise)
    made = await report(cases, given({"r0": [result("x")]}), out=tmp_path, evaluators=[raising], fail_if=[rule])
    assert (only(made).state, "gives numbers" in only(made).why) == ("not_judged", False)
    assert "broken: failed on 2 answers, which are not counted; the first: KeyError: 'oh no'" in list(made.lines())


def _raise(_: Answer) -> bool:
    raise KeyError("oh no")


async def test_one_failed_rule_fails_all_and_one_that_is_open_leaves_all_open(tmp_path: Path) -> None:
    async def of(rules: Sequence[str]) -> Report:
        cases = [case(f"r{n}", result("right")) for n in range(10)]
        return await report(cases, given({one.run_id: [result("wrong")] for one in cases}), out=tmp_path, fail_if=rules)

    failing, open_, passing = "pass_rate(exact) < 0.5", "pass_rate(exact) < baseline - 0.95 at 95%", "errors > 0.5"
    assert (await of([passing, open_, failing])).verdict.state == "failed"
    assert (await of([passing, open_])).verdict.state == "not_judged"
    assert (await of([passing])).verdict.state == "passed"


async def test_a_rule_on_nothing_is_refused_before_any_case_is_judged(tmp_path: Path) -> None:
    with pytest.raises(ComparisonError, match="there is no evaluator cost, only exact, latency, errors"):
        await judged(tmp_path, "mean(cost) > 1", cases=1, worse=0)
    assert not (tmp_path / "evidence.jsonl").exists()


@pytest.mark.parametrize(
    ("rule", "told"),
    [
        ("errors < baseline", "lower is better here; write `>`"),
        ("errors < 5%", "lower is better here; write `>`"),
        ("p95(latency) < 1.2 * baseline at 95%", "lower is better here; write `>`"),
        ("pass_rate > baseline", "higher is better here; write `<`"),
        ("pass_rate(exact) > 0.9", "higher is better here; write `<`"),
        ("pass@2(exact) > baseline", "higher is better here; write `<`"),
    ],
)
async def test_a_rule_that_fails_what_got_better_is_refused_before_any_case_is_judged(
    tmp_path: Path, rule: str, told: str
) -> None:
    with pytest.raises(ComparisonError, match=re.escape(f"rule `{rule}`: faces the wrong way: ")) as refused:
        await judged(tmp_path, rule, cases=1, worse=0)
    assert told in str(refused.value)
    assert not (tmp_path / "evidence.jsonl").exists()


@pytest.mark.parametrize("sign", ["<", ">"])
async def test_the_number_of_ones_own_evaluator_may_be_held_to_either_side(tmp_path: Path, sign: str) -> None:
    words = NamedEvaluator(name="words", spec="own:words", evaluator=lambda answer: float(len(answer.text.split())))
    made = await report(
        [case("r0", result("a b"))],
        given({"r0": [result("a b")]}),
        out=tmp_path,
        evaluators=[words],
        fail_if=[f"mean(words) {sign} baseline"],
    )
    assert only(made).state == "passed"
