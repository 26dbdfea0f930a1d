import json
import logging
from collections.abc import Iterator
from io import StringIO

import pytest
from structlog.contextvars import bound_contextvars

from agentstream.consumers.redaction import Redactor
from agentstream.infra.log_context import begin_run, end_run
from agentstream.infra.logs import configure_logs

CANARY = "canary-secret-0123456789"
log = logging.getLogger("agentstream.test")


class Terminal(StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture(autouse=True)
def kept_logging() -> Iterator[None]:
    """Leave pytest's own handlers as they were."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)
    logging.captureWarnings(capture=False)
    for name in ("aiokafka", "httpx", "httpcore", "asyncio", "docker", "testcontainers", "urllib3", log.name):
        logging.getLogger(name).setLevel(logging.NOTSET)


def test_a_pipe_gets_one_json_object_a_line_with_the_runs_ids() -> None:
    out = StringIO()
    configure_logs("info", stream=out)
    with bound_contextvars(run_id="r1", trace_id="t1"):
        log.info("run %s", "started", extra={"crashes": 0})
    line = json.loads(out.getvalue())
    assert (line["event"], line["run_id"], line["trace_id"], line["crashes"]) == ("run started", "r1", "t1", 0)
    assert (line["level"], line["logger"]) == ("info", "agentstream.test")


@pytest.mark.parametrize("log_format", ["console", "json"])
def test_the_ids_of_a_run_are_fields_until_it_is_over(log_format: str) -> None:
    out = StringIO()
    configure_logs("info", log_format=log_format, stream=out)  # type: ignore[arg-type]
    begin_run({"run_id": "r1", "trace_id": "t1"})
    with bound_contextvars(tool="bash"):
        log.info("between")
    end_run()
    log.info("after")
    between, after = out.getvalue().splitlines()
    for said in ("run_id", "r1", "trace_id", "t1", "tool", "bash"):
        assert said in between
        assert said not in after


@pytest.mark.parametrize("log_format", ["console", "json"])
def test_what_kafkas_client_says_is_not_of_the_run_in_which_its_connection_began(log_format: str) -> None:
    out = StringIO()
    configure_logs("info", log_format=log_format, stream=out)  # type: ignore[arg-type]
    begin_run({"run_id": "r1"})
    logging.getLogger("aiokafka.client").warning("Unable to update metadata")
    logging.getLogger("tool.of.somebody").warning("it called me")
    end_run()
    kafka, tool = out.getvalue().splitlines()
    assert "r1" not in kafka
    assert "r1" in tool


def test_a_terminal_gets_lines_for_people() -> None:
    out = Terminal()
    configure_logs("info", stream=out)
    log.info("worker started", extra={"pid": 1})
    assert "worker started" in out.getvalue()
    with pytest.raises(ValueError, match="Expecting value"):
        json.loads(out.getvalue())


@pytest.mark.parametrize("log_format", ["console", "json"])
def test_a_secret_leaves_by_no_door(log_format: str) -> None:
    out = StringIO()
    configure_logs("info", log_format=log_format, redactor=Redactor([CANARY]), stream=out)  # type: ignore[arg-type]
    local = CANARY

    class Own:
        def __repr__(self) -> str:
            return local

    with bound_contextvars(run_id=CANARY):
        log.info("the key is %s", CANARY, extra={"nested": {"deep": [CANARY, Own()]}})
        try:
            raise ValueError(CANARY)
        except ValueError:
            log.exception("it failed")
    assert out.getvalue().count("[redacted]") >= 5
    assert CANARY not in out.getvalue()


@pytest.mark.parametrize("log_format", ["console", "json"])
def test_tracebacks_show_no_local_variables(log_format: str) -> None:
    # Rich's do by default: whole requests, and settings, in the log of every crash.
    out = StringIO()
    configure_logs("info", log_format=log_format, stream=out)  # type: ignore[arg-type]
    request = "a whole " + "request"
    try:
        raise ValueError(len(request))
    except ValueError:
        log.exception("it failed")
    assert "a whole request" not in out.getvalue()
    assert "test_logs.py" in out.getvalue()


def test_libraries_are_heard_when_something_is_wrong_and_all_is_heard_with_debug() -> None:
    out = StringIO()
    configure_logs("info", stream=out, quieter=[log.name])
    logging.getLogger("aiokafka.consumer").info("noise")
    logging.getLogger("aiokafka").error(
        "Group Coordinator Request failed: [Error 15] GroupCoordinatorNotAvailableError"
    )
    log.info("noise")
    assert out.getvalue() == ""
    logging.getLogger("aiokafka.conn").warning("broker is gone")
    log.warning("partition is lost")
    assert len(out.getvalue().splitlines()) == 2
    configure_logs("debug", stream=out, quieter=[log.name])
    logging.getLogger("aiokafka.consumer").debug("joined")
    log.debug("details")
    assert len(out.getvalue().splitlines()) == 4
