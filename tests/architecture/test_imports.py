import pytest

from tests.architecture.rules import (
    MAX_LINES,
    breaches_of_direction,
    breaches_of_one_home,
    breaches_of_size,
    import_cycle,
)
from tests.architecture.sources import Module, modules


def test_imports_point_one_way_and_by_their_full_name() -> None:
    assert [breach for module in modules() for breach in breaches_of_direction(module)] == []


def test_kafka_telemetry_and_the_environment_have_one_home_each() -> None:
    assert [breach for module in modules() for breach in breaches_of_one_home(module)] == []


def test_no_modules_import_each_other_in_a_circle() -> None:
    assert import_cycle(modules()) == []


def test_files_stay_short_enough_to_be_read_at_once() -> None:
    assert [breach for module in modules() for breach in breaches_of_size(module)] == []


@pytest.mark.parametrize(
    ("path", "text"),
    [
        ("schemas/a.py", "from agentstream.producers.kafka import Producer"),
        ("producers/a.py", "def f() -> None:\n    import agentstream.consumers.worker"),
        ("consumers/a.py", "from agentstream import infra"),
        ("consumers/a.py", "import schemas.codec"),
        ("consumers/a.py", "from schemas import codec"),
        ("consumers/a.py", "from .ledger import Ledger"),
        ("infra/a.py", "from agentstream import AgentClient"),
    ],
)
def test_an_import_against_the_direction_is_noticed(path: str, text: str) -> None:
    assert len(list(breaches_of_direction(Module(path, text)))) == 1


@pytest.mark.parametrize(
    ("path", "text"),
    [
        ("consumers/worker.py", "from aiokafka import AIOKafkaConsumer"),
        ("consumers/worker.py", "import aiokafka\nx = aiokafka.AIOKafkaProducer"),
        ("producers/kafka.py", "from aiokafka.consumer import AIOKafkaConsumer"),
        ("infra/worker.py", "from aiokafka.producer.producer import AIOKafkaProducer"),
        ("consumers/worker.py", "from opentelemetry.sdk.trace import TracerProvider"),
        ("infra/cli.py", "from opentelemetry import sdk"),
        ("infra/telemetry_too.py", "from opentelemetry.exporter.prometheus import PrometheusMetricReader"),
        ("consumers/worker.py", "import os\nx = os.environ"),
        ("schemas/a.py", "from os import getenv"),
        ("producers/a.py", "from pydantic_settings import BaseSettings"),
    ],
)
def test_a_second_home_is_noticed(path: str, text: str) -> None:
    assert len(list(breaches_of_one_home(Module(path, text)))) == 1


def test_a_home_may_hold_what_it_is_the_home_of() -> None:
    home = Module("producers/kafka.py", "from aiokafka import AIOKafkaProducer\nfrom opentelemetry import trace")
    assert list(breaches_of_one_home(home)) == []


def test_a_circle_is_noticed_but_not_one_for_type_checkers_or_inside_a_function() -> None:
    one = Module("schemas/one.py", "from agentstream.schemas.two import Two")
    two = Module("schemas/two.py", "import agentstream.schemas.one")
    late = Module("schemas/two.py", "if TYPE_CHECKING:\n    import agentstream.schemas.one\ndef f():\n    import one")
    assert set(import_cycle([one, two])) == {"agentstream.schemas.one", "agentstream.schemas.two"}
    assert import_cycle([one, late]) == []


def test_a_long_file_is_noticed() -> None:
    assert list(breaches_of_size(Module("schemas/a.py", "\n" * (MAX_LINES + 1))))
    assert not list(breaches_of_size(Module("schemas/a.py", "\n" * MAX_LINES)))
