"""What is on the wire: models, topics, headers, codec. No I/O, no async."""
