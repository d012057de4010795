"""The event bus: its protocol, and its implementations on Kafka and on one SQLite file."""
