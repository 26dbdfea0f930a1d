// Ask an agent from Java, with Apache Kafka's own client.
//
//     java -cp 'libs/*' docs/examples/AskAgent.java 'Name a river.' [SESSION]
//
// Kafka is at KAFKA_BOOTSTRAP_SERVERS, or localhost:9092. It needs a JDK (17 or newer), kafka-clients and Jackson on the
// class path (a Kafka distribution has both in its libs directory), and a worker somewhere.

import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.ObjectMapper;
import java.nio.charset.StandardCharsets;
import java.time.Duration;
import java.util.List;
import java.util.Map;
import java.util.UUID;
import java.util.concurrent.ExecutionException;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.TimeoutException;
import org.apache.kafka.clients.consumer.ConsumerRecord;
import org.apache.kafka.clients.consumer.KafkaConsumer;
import org.apache.kafka.clients.producer.KafkaProducer;
import org.apache.kafka.clients.producer.ProducerRecord;
import org.apache.kafka.common.TopicPartition;
import org.apache.kafka.common.serialization.StringDeserializer;
import org.apache.kafka.common.serialization.StringSerializer;

public class AskAgent {
    static final String SERVERS = setting("KAFKA_BOOTSTRAP_SERVERS", "localhost:9092");
    static final String PREFIX = setting("AGENTSTREAM_TOPIC_PREFIX", "agent.");
    static final String REQUESTS = PREFIX + "invoke-requests";
    static final String RESULTS = PREFIX + "assistant-messages";
    static final ObjectMapper JSON = new ObjectMapper();

    public static void main(String[] arguments) {
        // What goes wrong is thrown: Kafka's own remarks would only repeat it (this is for slf4j-simple).
        System.setProperty("org.slf4j.simpleLogger.defaultLogLevel", "off");
        if (arguments.length == 0) {
            System.err.println("usage: AskAgent.java QUESTION [SESSION]");
            System.exit(1);
        }
        try {
            System.exit(ask(arguments[0], arguments.length > 1 ? arguments[1] : UUID.randomUUID().toString()));
        } catch (Exception failure) {
            Throwable cause = failure instanceof ExecutionException ? failure.getCause() : failure;
            System.err.println("error: " + cause.getMessage());
            System.exit(1);
        }
    }

    /** Sends one request and prints its result; returns the exit code. */
    static int ask(String question, String session) throws Exception {
        // Results of transactions that were rolled back are no results: read_committed is not the default here.
        Map<String, Object> reading =
                Map.of("bootstrap.servers", SERVERS, "isolation.level", "read_committed", "default.api.timeout.ms", 10000);
        Map<String, Object> writing = Map.of("bootstrap.servers", SERVERS, "max.block.ms", 10000);
        try (var consumer = new KafkaConsumer<>(reading, new StringDeserializer(), new StringDeserializer());
                var producer = new KafkaProducer<>(writing, new StringSerializer(), new StringSerializer())) {
            // The positions first: an answer that comes before anybody looks is then no lost answer.
            List<TopicPartition> partitions = consumer.partitionsFor(RESULTS).stream()
                    .map(each -> new TopicPartition(RESULTS, each.partition()))
                    .toList();
            Map<TopicPartition, Long> ends = consumer.endOffsets(partitions);

            String runId = UUID.randomUUID().toString();
            String body = JSON.writeValueAsString(Map.of(
                    "id", runId,
                    "session_id", session,
                    "messages", List.of(Map.of("role", "user", "content", question))));
            // Keyed by the session, and with no partitioner of our own: Kafka's default is murmur2 of the key, by which
            // everybody's requests of a session meet in one partition, and so its runs are in order.
            var request = new ProducerRecord<>(REQUESTS, session, body);
            // W3C trace context: what happens for this request becomes part of this trace. All headers are optional.
            request.headers().add("traceparent", traceparent().getBytes(StandardCharsets.UTF_8));
            int partition = producer.send(request).get(30, TimeUnit.SECONDS).partition();
            System.out.println("run " + runId + " in partition " + partition);

            // All that comes of a request is in its partition's number, on every topic.
            var mine = new TopicPartition(RESULTS, partition);
            consumer.assign(List.of(mine));
            consumer.seek(mine, ends.get(mine));
            JsonNode result = resultOf(consumer, runId);
            System.out.println(result.get("status").asText() + ": " + result.get("messages"));
            return result.get("status").asText().equals("completed") ? 0 : 1;
        }
    }

    /** Reads the one result of a run. */
    static JsonNode resultOf(KafkaConsumer<String, String> consumer, String runId) throws Exception {
        long until = System.nanoTime() + Duration.ofSeconds(60).toNanos();
        while (System.nanoTime() < until) {
            for (ConsumerRecord<String, String> record : consumer.poll(Duration.ofMillis(200))) {
                JsonNode result = JSON.readTree(record.value());
                if (result.get("run_id").asText().equals(runId)) {
                    return result;
                }
            }
        }
        throw new TimeoutException("no result in time; the run goes on");
    }

    static String traceparent() {
        String random = (UUID.randomUUID().toString() + UUID.randomUUID()).replace("-", "");
        return "00-" + random.substring(0, 32) + "-" + random.substring(32, 48) + "-01";
    }

    static String setting(String name, String otherwise) {
        String value = System.getenv(name);
        return value == null ? otherwise : value;
    }
}
