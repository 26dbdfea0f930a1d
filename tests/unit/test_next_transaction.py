"""How soon a transaction that the brokers refuse for the last one's sake is begun again."""

from aiokafka.errors import ConcurrentTransactions, CoordinatorLoadInProgressError

from agentstream.producers.next_transaction import FIRST_SECONDS, LAST_SECONDS, Patience

STILL_COMPLETING = [ConcurrentTransactions.errno, ConcurrentTransactions.errno]


def test_each_further_look_waits_twice_as_long_up_to_aiokafkas_own_wait() -> None:
    patience = Patience()
    waits = [patience.after(STILL_COMPLETING, 0.02) for _ in range(7)]
    assert waits[:3] == [FIRST_SECONDS, 2 * FIRST_SECONDS, 4 * FIRST_SECONDS]
    assert waits[-1] == LAST_SECONDS == max(wait or 0 for wait in waits)


def test_once_begun_the_next_one_is_asked_for_soon_again() -> None:
    patience = Patience()
    for _ in range(5):
        patience.after(STILL_COMPLETING, 0.02)
    assert patience.after([0, 0], None) is None
    assert patience.after(STILL_COMPLETING, 0.02) == FIRST_SECONDS


def test_other_errors_wait_as_long_as_aiokafka_does() -> None:
    assert Patience().after([CoordinatorLoadInProgressError.errno], 0.1) == 0.1
