"""Each evaluator on answers made by hand."""

import asyncio
import json
import sys
from pathlib import Path

import pytest
from pydantic import JsonValue
from pydantic_evals import evaluators as evals

from agentstream.consumers.replay.comparing.answers import Answer, ComparisonError, Score, as_score
from agentstream.consumers.replay.comparing.judging import adapted
from agentstream.consumers.replay.comparing.specs import make_evaluators, read_evaluator_file
from tests.support.comparisons import answer, case, given, report, result

Call = tuple[str, JsonValue]


def score(spec: str, judged: Answer) -> Score | None:
    scored = make_evaluators([spec])[0].evaluator(judged)
    return as_score(scored)


def passed(spec: str, text: str, *, reference: JsonValue = "42") -> bool | None:
    found = score(spec, answer(text, of=case(expected=reference)))
    return None if found is None else found.passed


@pytest.mark.parametrize(
    ("spec", "text", "reference", "right"),
    [
        ("exact", " 42\n", "42", True),
        ("exact", "42.", "42", False),
        ("exact", '{"b": [1.0], "a": 2}', {"a": 2, "b": [1]}, True),
        ("exact", "no json", {"a": 2}, False),
        ("exact", "42", None, None),
        ("contains", "it is 42!", "42", True),
        ("contains:Hello", "hello", "42", False),
        ("regex:^\\d+$", "42", None, True),
        ("regex:^\\d+$", "about 42", None, False),
        ("numeric", "6 times 7 is 42", 42, True),
        ("numeric", "42.1", "42", False),
        ("numeric:tolerance=0.1", "42.1", "42", True),
        ("numeric:relative=0.01", "1,010,000", "1000000", True),
        ("numeric", "no idea", "42", False),
    ],
)
def test_text_is_judged(spec: str, text: str, reference: JsonValue, right: bool | None) -> None:
    assert passed(spec, text, reference=reference) is right


def test_the_reference_is_what_was_expected_and_only_else_what_was_recorded() -> None:
    recorded = result("recorded")
    both = answer("x", of=case(recorded=recorded, expected="expected"))
    alone = answer("x", of=case(recorded=recorded))
    assert [(one.reference, one.reference_from) for one in (both, alone, answer("x"))] == [
        ("expected", "expected"),
        ("recorded", "recorded"),
        (None, None),
    ]
    # What a failed run said before it failed is no right answer.
    assert answer("x", of=case(recorded=result("half an ans", failed=True))).reference is None


def test_a_run_that_failed_passes_nothing_whatever_it_said() -> None:
    judged = answer(of=case(expected="42"), came=result("42", failed=True))
    found = score("exact", judged)
    assert found == Score(passed=False, explanation="provider_error: it is down")
    assert score("errors", judged) == Score(value=1.0, explanation="provider_error: it is down")
    assert score("errors", answer("x")) == Score(value=0.0)


def test_json_must_fit_the_schema(tmp_path: Path) -> None:
    path = tmp_path / "answer.json"
    path.write_text(json.dumps({"type": "object", "required": ["n"], "properties": {"n": {"type": "integer"}}}))
    spec = f"json-schema:{path}"
    assert passed(spec, '```json\n{"n": 1}\n```') is True
    assert passed(spec, '{"n": 1}') is True
    assert passed(spec, "{") is False
    found = score(spec, answer('{"n": "one"}'))
    assert found is not None
    assert found.explanation == "$.n: 'one' is not of type 'integer'"
    path.write_text('{"type": "nothing"}')
    with pytest.raises(ComparisonError, match=r"answer\.json"):
        make_evaluators([spec])


def test_tool_calls_are_held_against_those_recorded_by_order_name_and_arguments() -> None:
    recorded = result(calls=[("read", {"path": "a", "lines": 1}), ("bash", {"c": "ls"})])

    def called(spec: str, *calls: Call) -> Score | None:
        return score(spec, answer(of=case(recorded=recorded), came=result(calls=calls)))

    same: Call = ("read", {"lines": 1.0, "path": "a"})
    turned: Call = ("bash", {"c": "ls"})
    assert called("tools", same, turned) == Score(passed=True)
    assert called("tools", turned, same) == Score(
        passed=False, explanation='call 1: bash({"c":"ls"}) instead of read({"lines":1,"path":"a"})'
    )
    assert called("tools:order=any", turned, same) == Score(passed=True)
    assert called("tools:arguments=ignored", ("read", None), ("bash", None)) == Score(passed=True)
    missing = called("tools", same)
    assert missing is not None
    assert missing.explanation == 'call 2: nothing instead of bash({"c":"ls"})'


def test_numbers_are_taken_from_the_result_and_what_is_unknown_is_not_made_up() -> None:
    judged = answer(came=result(seconds=2.5, tokens=(100, 7), cost=("0.25", "USD")))
    found = [score(spec, judged) for spec in ("latency", "tokens", "tokens:input", "tokens:output", "cost")]
    assert [one.value for one in found if one is not None] == [2.5, 107, 100, 7, 0.25]
    unknown = answer(came=result(seconds=None))
    assert [score(spec, unknown) for spec in ("latency", "tokens", "cost")] == [None, None, None]
    with pytest.raises(ValueError, match="the cost is in USD: say --eval cost:USD"):
        score("cost:EUR", judged)


def test_why_it_stopped_is_held_against_the_recorded_reason_or_a_given_one() -> None:
    judged = answer(of=case(recorded=result(finish="stop")), came=result(finish="length"))
    assert score("finish_reason", judged) == Score(passed=False, explanation="length")
    assert score("finish_reason:length", judged) == Score(passed=True)


async def test_a_function_of_ones_own_may_await_and_one_that_raises_is_an_error_of_that_case(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "my_evaluators_of_this_test.py").write_text(
        "import asyncio\n"
        "async def polite(answer):\n"
        "    await asyncio.sleep(0)\n"
        "    return 'please' in answer.text\n"
        "def fragile(answer):\n"
        "    return 1 / (answer.case.run_id != 'r1')\n"
        "def odd(answer):\n"
        "    return float('nan') if answer.case.run_id == 'r0' else 'good'\n"
        "def leaves(answer):\n"
        "    raise SystemExit(1)\n"
        "def mixed(answer):\n"
        "    return 0.5 if answer.case.run_id == 'r0' else True\n"
    )
    monkeypatch.chdir(tmp_path)
    names = ("polite", "fragile", "odd", "leaves", "mixed")
    cases = [case(f"r{n}", result("please")) for n in range(3)]
    made = await report(
        cases,
        given({one.run_id: [result("no")] for one in cases}),
        out=tmp_path,
        evaluators=[f"my_evaluators_of_this_test:{name}" for name in names],
    )
    by_name = {one.evaluator.name: one for one in made.summaries}
    assert (len(by_name["polite"].worse), by_name["polite"].failures) == (3, 0)
    assert (by_name["fragile"].cases, by_name["fragile"].failures) == (2, 2)
    assert (by_name["odd"].cases, by_name["odd"].failures) == (0, 6)
    assert (by_name["leaves"].cases, by_name["leaves"].failures) == (0, 6)
    assert (by_name["mixed"].cases, by_name["mixed"].left_out) == (2, 1)
    assert "mixed: gave only a number for 2 answers, not counted since it passes or fails others" in made.lines()
    said = (tmp_path / "evidence.jsonl").read_text()
    assert "ZeroDivisionError: division by zero" in said
    assert "which no mean survives" in said
    assert "not str" in said


@pytest.mark.parametrize(
    ("spec", "why"),
    [
        ("nothing", "unknown; there are exact, contains"),
        ("regex:(", "regex:"),
        ("regex", "needs a pattern"),
        ("exact:x", "takes nothing"),
        ("numeric:tolerance=much", "could not convert"),
        ("numeric:0.1", "none of tolerance=…, relative=…"),
        ("tools:order=random", "order is one of strict, any"),
        ("no_such_module_here:f", "No module named"),
        ("json:no_such_function", "no_such_function"),
        ("judge:Is it polite?", "--judge-model"),
        ("judge:", "needs what to judge"),
        ("errors=exact", "always runs that were not completed"),
    ],
)
def test_an_evaluator_that_cannot_be_made_is_refused(spec: str, why: str) -> None:
    with pytest.raises(ComparisonError) as refused:
        make_evaluators([spec])
    assert why in str(refused.value)


@pytest.mark.parametrize(
    ("source", "why"),
    [("def f(:\n", "SyntaxError"), ("raise SystemExit(3)\n", "SystemExit: 3"), ("1 / 0\n", "ZeroDiv")],
)
def test_a_module_that_cannot_be_read_is_refused_and_no_bug_of_ours(
    source: str, why: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "unreadable_evaluators.py").write_text(source)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ComparisonError, match=why):
        make_evaluators(["unreadable_evaluators:f"])


def test_evaluators_have_names_of_their_own() -> None:
    made = make_evaluators(["contains:a", "contains:b=c", "polite=contains:please"])
    assert [one.name for one in made] == ["contains", "contains_2", "polite", "errors"]
    with pytest.raises(ComparisonError, match="another evaluator named polite"):
        make_evaluators(["polite=exact", "polite=tools"])


def test_a_file_names_evaluators_and_rules(tmp_path: Path) -> None:
    path = tmp_path / "judge.toml"
    path.write_text('fail_if = ["errors > 5%"]\n[evaluators]\npolite = "contains:please"\n')
    found = read_evaluator_file(path)
    assert (found.specs, found.fail_if) == (("polite=contains:please",), ("errors > 5%",))
    for text, why in (("rules = 1", "rules is neither"), ("fail_if = 'x'", "must be a list"), ("x", "judge.toml")):
        path.write_text(text)
        with pytest.raises(ComparisonError, match=why):
            read_evaluator_file(path)


def test_an_evaluator_of_pydantic_evals_judges_answers() -> None:
    async def of(evaluator: object, text: str) -> Score | None:
        judged = answer(text, of=case(expected="please", question="say it"))
        scored = adapted(evaluator)(judged)  # type: ignore[arg-type]  # any evaluator of that package
        return as_score(await scored)  # type: ignore[misc]

    assert asyncio.run(of(evals.EqualsExpected(), "please")) == Score(passed=True)
    contains = asyncio.run(of(evals.Contains(value="please"), "no"))
    assert contains is not None
    assert contains.passed is False
    assert "please" in (contains.explanation or "")
    assert asyncio.run(of(evals.MaxDuration(seconds=0.5), "x")) == Score(passed=False)


def test_a_judge_is_not_asked_about_a_run_that_failed() -> None:
    (polite, _) = make_evaluators(["judge:Are there no insults?"], judge_model="openai:nobody-is-asked")
    said = polite.evaluator(answer("", came=result(failed=True)))
    assert said == Score(passed=False, explanation="provider_error: it is down")


def test_without_the_extra_it_is_said_what_brings_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pydantic_evals.evaluators", None)
    with pytest.raises(ComparisonError, match=r"pip install 'agentstream-kafka\[evals\]'"):
        make_evaluators(["judge:Is it polite?"], judge_model="openai:gpt-5-mini")
