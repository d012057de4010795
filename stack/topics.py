"""Creates the topics of `deploy/kafka/topics.toml` before any consumer starts.

A consumer that starts before its topics exist receives nothing until its next metadata refresh.
"""

from __future__ import annotations

import asyncio
import time
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.errors import (
    InvalidPartitionsError,
    KafkaConnectionError,
    TopicAlreadyExistsError,
    for_code,
)

from backbone.bus.kafka_security import PLAINTEXT, KafkaSecurity, connection_failure
from stack.layout import REPOSITORY

LIST: Final = REPOSITORY / "deploy" / "kafka" / "topics.toml"
_MAX_REPLICAS: Final = 3
_RETRY_S: Final = 0.3
_PROPAGATION_S: Final = 10.0
"""How long a new topic may take to propagate from the controller to a broker."""


@dataclass(frozen=True, slots=True)
class Topic:
    """A required topic."""

    name: str
    partitions: int
    config: Mapping[str, str]


def read_topics(file: Path = LIST) -> list[Topic]:
    """The topics of the list."""
    found = tomllib.loads(file.read_text(encoding="utf-8"))
    groups = [group for group in found.values() if isinstance(group, dict)]
    return [Topic(name, found["partitions"], group["config"]) for group in groups for name in group["topics"]]


async def make_topics(
    bootstrap: str,
    prefix: str = "",
    security: KafkaSecurity = PLAINTEXT,
    *,
    within_s: float,
) -> list[str]:
    """Create the topics that the cluster at `bootstrap` lacks, and return their names; others are unchanged.

    Every name begins with `prefix`. Waits for the cluster up to `within_s`. Raises KafkaError with the reason
    where it rejects the connection, or where an existing topic has another number of partitions.
    """
    admin = await _connect(bootstrap, security, within_s)
    try:
        needed = [replace(topic, name=prefix + topic.name) for topic in read_topics()]
        there = set(await admin.list_topics())
        there |= await _known_to_controller(admin, [topic for topic in needed if topic.name not in there])
        await _require_compatible(admin, [topic for topic in needed if topic.name in there])
        wanted = [topic for topic in needed if topic.name not in there]
        if wanted:
            await _make(admin, wanted)
        return [topic.name for topic in wanted]
    finally:
        await admin.close()


async def _known_to_controller(admin: AIOKafkaAdminClient, topics: Sequence[Topic]) -> set[str]:
    """The names of those `topics` that exist although the broker does not list them yet.

    A topic reaches a broker some time after the controller has created it.
    """
    if not topics:
        return set()
    reply = await admin.create_topics(
        [NewTopic(topic.name, topic.partitions, 1) for topic in topics], validate_only=True
    )
    return {name for name, code, *_ in reply.topic_errors if for_code(code) is TopicAlreadyExistsError}


async def _make(admin: AIOKafkaAdminClient, wanted: Sequence[Topic]) -> None:
    replicas = min(len((await admin.describe_cluster())["brokers"]), _MAX_REPLICAS)
    # With three replicas, two must acknowledge a message, so one broker may be unavailable.
    durability = {"min.insync.replicas": str(max(replicas - 1, 1))}
    reply = await admin.create_topics(
        [
            NewTopic(topic.name, topic.partitions, replicas, topic_configs={**durability, **topic.config})
            for topic in wanted
        ]
    )
    for name, code, *details in reply.topic_errors:
        error = for_code(code)
        if error is not TopicAlreadyExistsError and code:
            raise error(f"topic {name} could not be created: {details[0] if details else ''}")


async def _require_compatible(admin: AIOKafkaAdminClient, there: Sequence[Topic]) -> None:
    """Raises InvalidPartitionsError where an existing topic has another number of partitions."""
    if not there:
        return
    found = await _partition_counts(admin, [topic.name for topic in there])
    for topic in there:
        if found.get(topic.name) != topic.partitions:
            raise InvalidPartitionsError(
                f"topic {topic.name} exists with {found.get(topic.name)} partitions; Ataa needs"
                f" {topic.partitions}: delete it, or set ATAA_KAFKA_PREFIX"
            )


async def _partition_counts(admin: AIOKafkaAdminClient, names: Sequence[str]) -> dict[str, int]:
    """The number of partitions of each topic; waits for topics that have not reached the broker yet."""
    give_up = time.monotonic() + _PROPAGATION_S
    while True:
        described = await admin.describe_topics(list(names))
        found = {one["topic"]: len(one["partitions"]) for one in described}
        if all(found.get(name) for name in names) or time.monotonic() > give_up:
            return found
        await asyncio.sleep(_RETRY_S)


async def _connect(bootstrap: str, security: KafkaSecurity, within_s: float) -> AIOKafkaAdminClient:
    give_up = time.monotonic() + within_s
    # Checked first: the client would log each attempt, without the reason of the failure.
    while reason := await connection_failure(bootstrap, security):
        if time.monotonic() > give_up:
            raise KafkaConnectionError(reason)
        await asyncio.sleep(_RETRY_S)
    admin = AIOKafkaAdminClient(bootstrap_servers=bootstrap, **security.options())
    try:
        await admin.start()
    except BaseException:
        await admin.close()
        raise
    return admin
