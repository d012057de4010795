"""PostgreSQL over TLS, configured by libpq's parameters in the database URL; invalid URLs."""

from __future__ import annotations

import ssl
from pathlib import Path

import pytest
from pydantic import TypeAdapter, ValidationError
from sqlalchemy import insert, make_url, text

from backbone.database.database import Database
from backbone.database.transient import DatabaseUnavailable, is_transient
from backbone.postgres_url import split_tls
from backbone.settings import DatabaseUrl
from tests.backbone.notes import MESSAGING_TABLES, Note, noted, open_database
from tests.engines import MissingRequirement, skip_or_fail
from tests.secure_engines import Authority, SecurePostgres, fresh_databases, make_authority, secure_postgres

IS_ENCRYPTED = text("SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()")


@pytest.fixture
def server() -> SecurePostgres:
    return secure_postgres()


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    try:
        return make_authority(tmp_path / "other")
    except MissingRequirement as reason:
        skip_or_fail(str(reason))


async def test_every_connection_to_postgresql_is_encrypted(server: SecurePostgres) -> None:
    async with fresh_databases(server, "notes") as made, open_database(made["notes"]) as database:
        async with database.transaction() as session:
            assert (await session.execute(IS_ENCRYPTED)).scalar()
            await session.execute(insert(Note), [{"about": "k", "text": "encrypted"}])
        async with database.leader_lock("relay") as is_leader:
            assert await is_leader()
        assert await noted(database) == [("k", "encrypted")]


async def test_sslmode_require_accepts_any_certificate(server: SecurePostgres) -> None:
    database = Database(f"{server.address}?sslmode=require", MESSAGING_TABLES)
    try:
        async with database.reading() as session:
            assert (await session.execute(IS_ENCRYPTED)).scalar()
    finally:
        await database.close()


async def test_server_with_an_untrusted_certificate_is_refused(
    server: SecurePostgres, authority: Authority
) -> None:
    database = Database(
        f"{server.address}?sslmode=verify-full&sslrootcert={authority.file}", MESSAGING_TABLES
    )
    try:
        with pytest.raises(DatabaseUnavailable) as said:
            async with database.reading() as session:
                (await session.execute(IS_ENCRYPTED)).scalar()
        assert isinstance(said.value.__cause__, ssl.SSLCertVerificationError)
        assert is_transient(said.value), "a CA setting can be corrected, so no event may become a dead letter"
    finally:
        await database.close()


def test_parameters_other_than_tls_stay_in_the_url() -> None:
    given = make_url("postgresql://u:p@h/d?sslmode=require&sslcert=a%26b&prepared_statement_cache_size=0")
    url, arguments = split_tls(given)
    assert url.render_as_string(hide_password=False) == (
        "postgresql+asyncpg://u:p@h/d?prepared_statement_cache_size=0"
    )
    assert arguments == {"dsn": "postgresql://?sslmode=require&sslcert=a%26b"}
    assert split_tls(make_url("postgresql://u:p@h/d"))[1] == {}


@pytest.mark.parametrize(
    ("address", "words"),
    [
        ("postgresql://u@h/d?sslmode=always", "sslmode must be one of disable, allow"),
        ("postgresql://u@h/d?sslmode=verify-full", "needs sslrootcert"),
        ("postgresql://u@h/d?sslmode=verify-full&sslrootcert=/nowhere.pem", "there is no file /nowhere.pem"),
        ("postgresql://u:secret@h:port/d", "must be postgresql://user:password@host:port/database"),
        ("mysql://u@h/d", "must begin with postgresql://"),
    ],
)
def test_invalid_database_url_is_refused_with_its_reason(address: str, words: str) -> None:
    with pytest.raises(ValidationError) as said:
        TypeAdapter(DatabaseUrl).validate_python(address)
    problem = said.value.errors()[0]["msg"]
    assert words in problem
    assert "secret" not in problem
