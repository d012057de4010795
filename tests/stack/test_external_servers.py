"""`make stack` on an external Kafka and PostgreSQL: shared, over TLS, with authentication."""

from __future__ import annotations

import json
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import aiohttp
import pytest
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.errors import InvalidPartitionsError

from stack import postgres, processes
from stack.process_specs import ORDER
from stack.settings import SERVICES
from stack.topics import make_topics, read_topics
from tests.ports import free_port
from tests.secure_engines import fresh_databases, make_authority, secure_kafka, secure_postgres
from tests.stack.stack_command import stack
from tests.stack.test_stack import Partner, free_base
from tests.waiting import until


async def test_stack_uses_external_engines_and_starts_none_of_its_own(tmp_path: Path) -> None:
    kafka, server, base = secure_kafka(), secure_postgres(), free_base(28_000)
    prefix = f"{uuid.uuid4().hex[:12]}."
    async with fresh_databases(server, *SERVICES) as databases:
        settings = {
            **kafka.settings(),
            "ATAA_KAFKA_PREFIX": prefix,
            **{f"ATAA_DATABASE_URL_{name.upper()}": url for name, url in databases.items()},
        }
        try:
            started = stack(tmp_path, base, "up", **settings)
            assert started.returncode == 0, started.stdout + started.stderr
            run = tmp_path / "stack" / "run"
            started_here = {name for name in ORDER if processes.find(name, run).pid is not None}
            assert started_here - {"prometheus"} == {"sandbox", *SERVICES, "supervisor"}

            admin = json.loads((tmp_path / "stack" / "keys.json").read_text())["admin"]
            async with aiohttp.ClientSession() as client:
                partner = Partner(client, f"http://127.0.0.1:{base}", admin)
                await partner.open_drive("winter")
                await partner.donate("winter", "first")

                async def raised() -> bool:
                    return await partner.raised("winter") == "25.00"

                await until(raised, 60)
        finally:
            stopped = stack(tmp_path, base, "down", **settings)
        assert stopped.returncode == 0, stopped.stdout + stopped.stderr
    assert await topics_with(prefix, kafka.plain) == {prefix + topic.name for topic in read_topics()}


async def test_incompatible_topics_are_named_and_existing_ones_unchanged() -> None:
    bootstrap, prefix = secure_kafka().plain, f"{uuid.uuid4().hex[:12]}."
    async with admin_of(bootstrap) as admin:
        await admin.create_topics([NewTopic(f"{prefix}payments", 1, 1)])
    with pytest.raises(InvalidPartitionsError, match=rf"{prefix}payments exists with 1 partitions.* 12"):
        await make_topics(bootstrap, prefix, within_s=30)
    assert await topics_with(prefix, bootstrap) == {f"{prefix}payments"}


def test_rejected_kafka_connection_is_reported_in_one_line(tmp_path: Path) -> None:
    settings = secure_kafka().settings() | {"ATAA_KAFKA_SASL_PASSWORD": "wrong"}
    for _ in range(5):  # a busy machine may reply too late at first
        refused = stack(tmp_path, 28_000, "topics", **settings)
        assert refused.returncode == 2
        assert len(refused.stderr.strip().splitlines()) == 1, refused.stderr
        if "no answer within" not in refused.stderr:
            break
    assert "authentication failed, see ATAA_KAFKA_SASL_USER" in refused.stderr


async def test_rejected_database_connection_is_reported_in_one_line(tmp_path: Path) -> None:
    server = secure_postgres()
    other = make_authority(tmp_path / "other")
    base = server.address.rpartition("/")[0]
    for address, expected in {
        server.over_tls(server.address): "",
        f"{server.address}?sslmode=disable": "no encryption",
        f"{server.address}?sslmode=verify-full&sslrootcert={other.file}": "certificate verify failed",
        server.over_tls(f"{base}/nothing"): 'database "nothing" does not exist',
        f"postgresql://127.0.0.1:{free_port()}/nothing": "Connect call failed",
    }.items():

        async def reason_matches(address: str = address, expected: str = expected) -> bool:
            reason = await postgres.connection_error(address)
            assert len(reason.splitlines()) <= 1
            return expected in reason if expected else not reason

        await until(reason_matches, 60)  # a busy machine may reply too late at first


def test_kafka_security_without_an_external_kafka_is_refused(tmp_path: Path) -> None:
    settings = {name: value for name, value in secure_kafka().settings().items() if "BOOTSTRAP" not in name}
    refused = stack(tmp_path, 28_000, "up", **settings)
    assert refused.returncode == 2
    assert refused.stderr.startswith("ataa: ATAA_KAFKA_SECURITY_PROTOCOL: ")


@asynccontextmanager
async def admin_of(bootstrap: str) -> AsyncIterator[AIOKafkaAdminClient]:
    admin = AIOKafkaAdminClient(bootstrap_servers=bootstrap)
    await admin.start()
    try:
        yield admin
    finally:
        await admin.close()


async def topics_with(prefix: str, bootstrap: str) -> set[str]:
    """The cluster's topics that begin with `prefix`."""
    async with admin_of(bootstrap) as admin:
        return {name for name in await admin.list_topics() if name.startswith(prefix)}
