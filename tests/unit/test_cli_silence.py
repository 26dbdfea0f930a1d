from datetime import UTC, datetime

from agentstream.consumers.client import Voided
from agentstream.infra.cli.silence import BROKER_BACK, NO_BROKER, NOBODY, NOT_TAKEN, BrokerSilence, Silence
from agentstream.schemas.events import RunAlive, RunQueued, RunRetrying

NOW = datetime(2026, 1, 1, tzinfo=UTC)


def alive() -> RunAlive:
    return RunAlive(seq=0, time=NOW)


def test_a_request_that_nobody_takes_is_said_once() -> None:
    silence = Silence(100.0)
    assert not silence.must_look(109.0)
    assert silence.must_look(110.0)
    assert silence.said(110.0, broker_answers=True) == NOT_TAKEN
    assert silence.said(200.0, broker_answers=True) is None


def test_a_running_attempt_that_no_longer_says_that_it_lives_is_said() -> None:
    silence = Silence(0.0)
    silence.heard(alive(), 5.0)
    assert silence.said(15.0, broker_answers=True) is None
    silence.heard(alive(), 15.0)
    assert silence.said(29.0, broker_answers=True) is None
    assert silence.said(30.0, broker_answers=True) == NOBODY
    assert silence.said(31.0, broker_answers=True) is None
    # Another worker took it over, and dies as well.
    silence.heard(Voided(), 60.0)
    assert silence.said(75.0, broker_answers=True) == NOBODY


def test_a_broker_that_goes_is_said_and_that_it_is_back_is_said() -> None:
    silence = Silence(0.0)
    silence.heard(alive(), 5.0)
    assert [silence.said(at, broker_answers=False) for at in (16.0, 21.0)] == [NO_BROKER, None]
    assert silence.said(60.0, broker_answers=True) == BROKER_BACK
    # Nobody could be heard meanwhile, so the worker is not blamed at once.
    assert silence.said(70.0, broker_answers=True) is None
    assert silence.said(75.0, broker_answers=True) == NOBODY


def test_that_a_broker_is_back_is_said_although_a_run_was_heard_first() -> None:
    silence = Silence(0.0)
    assert silence.said(16.0, broker_answers=False) == NO_BROKER
    silence.heard(alive(), 60.0)  # the run went on meanwhile: nothing is missed any more
    assert silence.must_look(60.5)
    assert silence.said(60.5, broker_answers=True) == BROKER_BACK
    assert not silence.must_look(61.0)


def test_one_that_waits_its_turn_or_for_its_next_attempt_is_not_taken_for_dead() -> None:
    silence = Silence(0.0)
    silence.heard(RunQueued(ahead=2, seq=0, time=NOW), 1.0)
    assert silence.said(500.0, broker_answers=True) is None
    silence.heard(RunRetrying(delay_ms=60_000, seq=0, time=NOW), 500.0)
    assert silence.said(570.0, broker_answers=True) is None
    assert silence.said(575.0, broker_answers=True) == NOBODY


def test_a_stream_without_signs_of_life_is_not_taken_for_dead() -> None:
    silence = Silence(0.0, alive_is_sent=False)
    silence.heard(alive(), 1.0)
    assert silence.said(500.0, broker_answers=True) is None


def test_where_no_run_is_waited_for_only_the_brokers_are_missed() -> None:
    silence = BrokerSilence(0.0)
    assert not silence.must_look(9.0)
    silence.spoke(5.0)
    assert not silence.must_look(14.0)
    assert silence.must_look(15.0)
    assert silence.said(1_000.0, broker_answers=True) is None
    assert silence.said(1_001.0, broker_answers=False) == NO_BROKER
    assert silence.said(1_002.0, broker_answers=False) is None
    assert silence.said(1_003.0, broker_answers=True) == BROKER_BACK
    assert silence.said(5_000.0, broker_answers=True) is None
