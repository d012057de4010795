"""The real stack on one machine: Kafka, PostgreSQL, Prometheus and the five services, each a process.

Owns: `$ATAA_DATA_DIR/stack` (data, pids, ports, secrets, logs) and the starting order.
"""
