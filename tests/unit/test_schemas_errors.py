"""The one table of error codes, and problems made from it."""

import pytest

from agentstream.schemas.errors import MAX_DETAIL, ErrorCode, Problem, Stage, error_rule
from agentstream.schemas.events import EVENT_TYPES
from agentstream.schemas.tables import errors_page, event_models, events_page


@pytest.mark.parametrize("code", ErrorCode)
def test_every_code_has_a_line_in_the_table_and_on_the_page(code: ErrorCode) -> None:
    rule = error_rule(code)
    assert rule.title
    assert not rule.title.endswith(".")
    assert rule.advice.endswith(".")
    assert f"| `{code.value}` | {rule.title} |" in errors_page()


def test_dead_letters_are_what_was_refused_or_is_worth_sending_again() -> None:
    never = {code for code in ErrorCode if not error_rule(code).dead_letter}
    assert never == {
        *("cancelled", "deadline_exceeded", "no_output", "max_turns", "budget_exceeded"),
        "replay_diverged",
    }
    for code in ErrorCode:
        rule = error_rule(code)
        if rule.retriable or rule.stage is Stage.DECODE:
            assert rule.dead_letter, code


def test_a_problem_says_what_the_table_says_in_one_line() -> None:
    problem = Problem.of(ErrorCode.RATE_LIMITED, "openai\nanswered\t429 " + "x" * 10_000)
    assert problem.detail is not None
    assert problem.detail.startswith("openai answered 429 xxx")
    assert len(problem.detail) == MAX_DETAIL
    assert (problem.title, problem.retriable, problem.stage) == ("The provider limits the rate", True, Stage.MODEL)
    assert Problem.of(ErrorCode.INTERNAL, stage=Stage.PRODUCE).stage is Stage.PRODUCE


def test_the_types_a_reader_knows_are_those_of_the_events() -> None:
    types = [event.model_fields["type"].default for event in event_models()]
    assert sorted(types) == sorted(EVENT_TYPES)
    assert len(types) == len(set(types))
    for event_type in types:
        assert f"| `{event_type}` |" in events_page()
