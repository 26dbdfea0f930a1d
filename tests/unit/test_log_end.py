"""Kafka's log in one line: what was thrown, and none of the frames."""

from agentstream.infra.broker.log_end import log_end, taken_port
from agentstream.infra.broker.port import PortTaken, not_started

# As Kafka 4.3.1 writes it; it ends with frames, a cause that says less than the line above it, and a warning.
TAKEN = """\
15:51:32.700 [main] ERROR kafka.server.BrokerServer - [BrokerServer id=1] Fatal error during broker startup.
java.lang.RuntimeException: Unable to start acceptor for ListenerName(PLAINTEXT)
\tat kafka.network.Acceptor.start(SocketServer.scala:511)
\tat java.base/java.util.concurrent.CompletableFuture.uniWhenComplete(CompletableFuture.java:863)
\t... 6 more
Caused by: org.apache.kafka.common.KafkaException: Socket server failed to bind to 127.0.0.1:23456: Address already in use.
\tat kafka.network.SocketServer.$anonfun$enableRequestProcessing$2(SocketServer.scala:196)
Caused by: java.net.BindException: Address already in use
\tat java.base/sun.nio.ch.Net.bind0(Native Method)
\tat org.apache.kafka.server.ServerSocketFactory$KafkaServerSocketFactory.openServerSocket(ServerSocketFactory.java:53)
\t... 18 more
15:51:32.779 [kafka-shutdown-hook] WARN org.apache.kafka.clients.NetworkClient - Attempting to close NetworkClient
"""  # noqa: E501


def test_it_is_the_message_that_says_most() -> None:
    bound = "Socket server failed to bind to 127.0.0.1:23456: Address already in use."
    assert log_end(TAKEN) == f"org.apache.kafka.common.KafkaException: {bound}"


def test_without_an_exception_it_is_the_last_line_that_is_no_frame() -> None:
    assert (
        log_end("one\nKilled by somebody\n\tat kafka.Kafka.main(Kafka.scala)\n\t... 6 more\n\n") == "Killed by somebody"
    )
    assert log_end("") == "it is empty"


def test_a_port_that_is_taken_is_told_from_other_failures() -> None:
    assert taken_port(TAKEN) == 23456
    assert taken_port("Bind for 0.0.0.0:9092 failed: port is already allocated") == 9092
    assert taken_port("java.lang.OutOfMemoryError: Java heap space at 127.0.0.1:9092") is None
    error = not_started(1, TAKEN)
    assert isinstance(error, PortTaken)
    assert (str(error), "Net.bind0" in error.__notes__[0]) == ("port 23456 is taken", True)
    other = not_started(2, "java.lang.OutOfMemoryError: Java heap space\n\tat x.Y.z(Y.java:1)")
    assert str(other) == "Kafka node 2 did not start: java.lang.OutOfMemoryError: Java heap space"
