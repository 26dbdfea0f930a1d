"""The log as JSON: what a line shows, and that no form of a secret gets through."""

import json
import logging
from dataclasses import dataclass, field

import pytest
from hypothesis import given
from hypothesis import strategies as st
from structlog.contextvars import bound_contextvars

from agentstream.consumers.redaction import Redactor
from agentstream.infra.log_json import JsonLines

SECRETS = st.text('ab"\\\n\té☃/', min_size=8, max_size=12)


def line(redactor: Redactor | None = None, **fields: object) -> str:
    record = logging.makeLogRecord({"name": "agentstream.test", "levelname": "INFO", "msg": "said", **fields})
    return JsonLines(redactor or Redactor()).format(record)


@given(secret=SECRETS, before=st.sampled_from(["", "key: ", '"', "\\", "\ud83d"]))
def test_a_secret_is_found_behind_escapes_of_any_depth(secret: str, before: str) -> None:
    escaped = json.dumps(secret)
    fields = {"plain": secret, "quoted": escaped, "answer": json.dumps({"key": secret}, ensure_ascii=False)}
    fields = {name: before + value for name, value in fields.items()}
    shown = json.loads(line(Redactor([secret]), msg=before + secret, **fields, deep=[{"er": escaped}]))
    for text in (shown["event"], *(shown[name] for name in fields), shown["deep"][0]["er"]):
        assert "[redacted]" in text
        assert secret not in text
        assert escaped[1:-1] not in text


def test_a_secret_is_found_in_a_line_without_escapes() -> None:
    secret = "canary-0123456789"
    shown = line(Redactor([secret]), msg=f"it is {secret}", plain=secret, deep=[{secret: ("x", secret)}])
    assert "\\" not in shown
    assert secret not in shown
    assert json.loads(shown)["deep"] == [{"[redacted]": ["x", "[redacted]"]}]


def test_an_object_shows_its_repr_and_nothing_that_this_leaves_out() -> None:
    @dataclass
    class Key:
        name: str
        value: str = field(repr=False)

    for shown in (line(key=Key("k", "hidden")), line(deep=[{"key": Key("k", "hidden")}])):
        assert "hidden" not in shown
        assert "Key(name='k')" in json.dumps(json.loads(shown))


def test_half_a_character_costs_no_line() -> None:
    # A JavaScript string that was cut in mid-emoji; or a file's name that is no UTF-8.
    shown = json.loads(line(detail="\ud83d", path="caf\udce9", attempt=1, other="é☃"))
    assert (shown["detail"], shown["path"], shown["attempt"], shown["other"]) == ("\ud83d", "caf\udce9", 1, "é☃")
    assert shown["timestamp"].endswith("Z")


def test_a_line_has_what_happened_then_the_tasks_fields_then_its_own_which_prevail_then_the_time() -> None:
    with bound_contextvars(run_id="bound"):
        assert list(json.loads(line(crashes=0))) == ["event", "run_id", "level", "logger", "crashes", "timestamp"]
        assert json.loads(line(run_id="own"))["run_id"] == "own"


@pytest.mark.parametrize("value", ["text", 7, 0.25, True, None, [1, "two"], {"three": 4}])
def test_values_that_json_knows_are_themselves(value: object) -> None:
    assert json.loads(line(value=value))["value"] == value


def test_an_exception_and_a_stack_are_shown() -> None:
    try:
        raise ValueError("broken")
    except ValueError as error:
        shown = json.loads(line(exc_info=(type(error), error, error.__traceback__), stack_info="Stack: here"))
    assert shown["stack"] == "Stack: here"
    (exception,) = shown["exception"]
    assert (exception["exc_type"], exception["exc_value"]) == ("ValueError", "broken")
    assert exception["frames"][-1]["filename"] == __file__
