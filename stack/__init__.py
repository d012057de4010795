"""The stack on one machine: Kafka, PostgreSQL, Prometheus and the five services, each a process.

Owns: `$ATAA_DATA_DIR/stack` (data, process ids, ports, secrets, logs) and the starting order.
"""
