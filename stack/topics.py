"""The topics, made before anything reads them (`deploy/kafka/topics.toml`).

A consumer that starts before its topics exist gets nothing for long.
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
_MOST_REPLICAS: Final = 3
_ASK_AGAIN_S: Final = 0.3
_LEARN_S: Final = 10.0
"""How long a broker may take to learn of a topic that the controller knows."""


@dataclass(frozen=True, slots=True)
class Topic:
    """A topic as it has to be."""

    name: str
    partitions: int
    config: Mapping[str, str]


def read_topics(file: Path = LIST) -> list[Topic]:
    """The list as it is written."""
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
    """Make the topics that the cluster at `bootstrap` lacks; their names. Those there stay as they are.

    `prefix` stands before every name. Waits for the cluster; raises KafkaError with its reason where it
    does not let us in within `within_s`, and where a topic is there that cannot serve.
    """
    admin = await _connected(bootstrap, security, within_s)
    try:
        needed = [replace(topic, name=prefix + topic.name) for topic in read_topics()]
        there = set(await admin.list_topics())
        there |= await _known_to_controller(admin, [topic for topic in needed if topic.name not in there])
        await _must_fit(admin, [topic for topic in needed if topic.name in there])
        wanted = [topic for topic in needed if topic.name not in there]
        if wanted:
            await _make(admin, wanted)
        return [topic.name for topic in wanted]
    finally:
        await admin.close()


async def _known_to_controller(admin: AIOKafkaAdminClient, topics: Sequence[Topic]) -> set[str]:
    """The names of those `topics` that exist although the broker asked does not list them yet.

    A broker learns of a topic some time after the controller made it.
    """
    if not topics:
        return set()
    reply = await admin.create_topics(
        [NewTopic(topic.name, topic.partitions, 1) for topic in topics], validate_only=True
    )
    return {name for name, code, *_ in reply.topic_errors if for_code(code) is TopicAlreadyExistsError}


async def _make(admin: AIOKafkaAdminClient, wanted: Sequence[Topic]) -> None:
    replicas = min(len((await admin.describe_cluster())["brokers"]), _MOST_REPLICAS)
    # With three copies two must have a message before it counts, and one broker may be away.
    at_least = {"min.insync.replicas": str(max(replicas - 1, 1))}
    reply = await admin.create_topics(
        [
            NewTopic(topic.name, topic.partitions, replicas, topic_configs={**at_least, **topic.config})
            for topic in wanted
        ]
    )
    for name, code, *words in reply.topic_errors:
        error = for_code(code)
        if error is not TopicAlreadyExistsError and code:
            raise error(f"topic {name} could not be made: {words[0] if words else ''}")


async def _must_fit(admin: AIOKafkaAdminClient, there: Sequence[Topic]) -> None:
    """Whoever keys by partition cannot do with another number of them. Raises InvalidPartitionsError."""
    if not there:
        return
    found = await _partition_counts(admin, [topic.name for topic in there])
    for topic in there:
        if found.get(topic.name) != topic.partitions:
            raise InvalidPartitionsError(
                f"topic {topic.name} is there with {found.get(topic.name)} partitions; Ataa needs"
                f" {topic.partitions}: delete it, or set ATAA_KAFKA_PREFIX"
            )


async def _partition_counts(admin: AIOKafkaAdminClient, names: Sequence[str]) -> dict[str, int]:
    """How many partitions each of these topics has; waits for those the broker has not learned of yet."""
    give_up = time.monotonic() + _LEARN_S
    while True:
        described = await admin.describe_topics(list(names))
        found = {one["topic"]: len(one["partitions"]) for one in described}
        if all(found.get(name) for name in names) or time.monotonic() > give_up:
            return found
        await asyncio.sleep(_ASK_AGAIN_S)


async def _connected(bootstrap: str, security: KafkaSecurity, within_s: float) -> AIOKafkaAdminClient:
    give_up = time.monotonic() + within_s
    # Asked first, and quietly: the client would log each try, and not say why it failed.
    while reason := await connection_failure(bootstrap, security):
        if time.monotonic() > give_up:
            raise KafkaConnectionError(reason)
        await asyncio.sleep(_ASK_AGAIN_S)
    admin = AIOKafkaAdminClient(bootstrap_servers=bootstrap, **security.options())
    try:
        await admin.start()
    except BaseException:
        await admin.close()
        raise
    return admin
