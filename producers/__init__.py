"""Everything that writes to Kafka."""
