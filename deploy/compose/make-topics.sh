#!/bin/sh
# Creates the missing topics of deploy/kafka/topics.toml (a test compares them).
set -eu

topic() { # name, then its configuration
  name=$1
  shift
  for entry in "$@"; do set -- "$@" --config "$entry"; shift; done
  /opt/kafka/bin/kafka-topics.sh --bootstrap-server kafka:9092 --create --if-not-exists \
    --topic "$name" --partitions 12 --replication-factor 1 "$@"
}

for carried in pledges payments drive-log; do
  topic "$carried" cleanup.policy=delete retention.ms=2592000000 retention.bytes=-1 segment.ms=86400000
done

for kept in pledges.dead-letter payments.dead-letter leaderboard.dead-letter notify.dead-letter; do
  topic "$kept" cleanup.policy=delete retention.ms=-1 retention.bytes=-1
done

topic snapshots \
   cleanup.policy=compact min.compaction.lag.ms=120000 max.compaction.lag.ms=3000000 segment.ms=600000 segment.bytes=16777216 \
   min.cleanable.dirty.ratio=0.1 delete.retention.ms=600000 retention.ms=-1 retention.bytes=-1
