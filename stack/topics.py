"""The topics, made before anything reads them (`deploy/kafka/topics.toml`).

A consumer that starts before its topics exist gets nothing for long.
"""

from __future__ import annotations

import asyncio
import time
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.errors import KafkaError, TopicAlreadyExistsError, for_code

from stack.layout import REPOSITORY

LIST: Final = REPOSITORY / "deploy" / "kafka" / "topics.toml"
READY_S: Final = 60.0
_MOST_REPLICAS: Final = 3


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


async def make_topics(bootstrap: str) -> list[str]:
    """Make the topics that the cluster at `bootstrap` lacks; their names. Those there stay as they are.

    Waits for the cluster; raises KafkaError or OSError where it does not come within a minute.
    """
    admin = await _connected(bootstrap)
    try:
        there = set(await admin.list_topics())
        brokers = len((await admin.describe_cluster())["brokers"])
        wanted = [topic for topic in read_topics() if topic.name not in there]
        if not wanted:
            return []
        replicas = min(brokers, _MOST_REPLICAS)
        reply = await admin.create_topics(
            [
                NewTopic(topic.name, topic.partitions, replicas, topic_configs=dict(topic.config))
                for topic in wanted
            ]
        )
        for name, code, *_ in reply.topic_errors:
            error = for_code(code)
            if error is not TopicAlreadyExistsError and code:
                raise error(f"topic {name} could not be made")
        return [topic.name for topic in wanted]
    finally:
        await admin.close()


async def _connected(bootstrap: str) -> AIOKafkaAdminClient:
    give_up = time.monotonic() + READY_S
    while True:
        admin = AIOKafkaAdminClient(bootstrap_servers=bootstrap)
        try:
            await admin.start()
        except (KafkaError, OSError):
            await admin.close()
            if time.monotonic() > give_up:
                raise
            await asyncio.sleep(0.3)
        else:
            return admin
