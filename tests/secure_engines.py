"""A Kafka and a PostgreSQL that require TLS and authentication, as an external cluster would.

Their certificates are created with `openssl`; one of each server per run, see `tests.engines`.
"""

from __future__ import annotations

import shutil
import subprocess
import uuid
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import asyncpg

from tests import engines
from tests.ports import free_port

USER: Final = "ataa"
PASSWORD: Final = "a word + signs!"
_SCRAM: Final = ("SCRAM-SHA-512", "SCRAM-SHA-256")
_LOGIN: Final = "org.apache.kafka.common.security"


@dataclass(frozen=True, slots=True)
class Authority:
    """A certificate authority in `folder`, with the certificates it signed."""

    folder: Path

    @property
    def file(self) -> Path:
        """The authority's certificate."""
        return self.folder / "ca.pem"

    def signed(self, name: str) -> tuple[Path, Path]:
        """The certificate and the key of `name`, created by `make_authority`."""
        return self.folder / f"{name}.pem", self.folder / f"{name}.key"


def make_authority(folder: Path, *names: str) -> Authority:
    """Create an authority that signs a certificate for each of `names`, valid for 127.0.0.1 too."""
    if shutil.which("openssl") is None:
        raise engines.MissingRequirement("there is no openssl on the PATH (on Debian: apt install openssl)")
    folder.mkdir(exist_ok=True)
    made = Authority(folder)
    key = folder / "ca.key"
    _openssl("req", "-x509", *_new_key(key), "-subj", "/CN=Ataa tests", "-days", "2", "-out", str(made.file))
    for name in names:
        certificate, key_of_it = made.signed(name)
        asked = folder / f"{name}.csr"
        _openssl("req", *_new_key(key_of_it), "-subj", f"/CN={name}", "-out", str(asked))
        also = folder / f"{name}.ext"
        also.write_text("subjectAltName=IP:127.0.0.1,DNS:localhost\n")
        _openssl(
            *("x509", "-req", "-in", str(asked), "-CA", str(made.file), "-CAkey", str(key), "-days", "2"),
            *("-CAcreateserial", "-extfile", str(also), "-out", str(certificate)),
        )
    return made


def _new_key(file: Path) -> tuple[str, ...]:
    return "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-keyout", str(file)


def _openssl(*arguments: str) -> None:
    done = subprocess.run(["openssl", *arguments], capture_output=True, text=True, check=False, timeout=60)
    if done.returncode:
        raise engines.MissingRequirement(f"openssl {arguments[0]} failed: {done.stderr[-300:]}")


@dataclass(frozen=True, slots=True)
class SecureKafka:
    """The addresses of a node by authentication: password, client certificate, none."""

    sasl: str
    mutual: str
    plain: str
    authority: Authority

    def settings(self) -> dict[str, str]:
        """The settings of a client with a password."""
        return {
            "ATAA_KAFKA_BOOTSTRAP": self.sasl,
            "ATAA_KAFKA_SECURITY_PROTOCOL": "SASL_SSL",
            "ATAA_KAFKA_CA_FILE": str(self.authority.file),
            "ATAA_KAFKA_SASL_USER": USER,
            "ATAA_KAFKA_SASL_PASSWORD": PASSWORD,
        }


def secure_kafka() -> SecureKafka:
    """A running node with a SASL_SSL listener and one that requires client certificates."""
    sasl, mutual, plain, folder = engines.shared("secure-kafka", _start_kafka).split(" ", 3)
    return SecureKafka(sasl, mutual, plain, Authority(Path(folder)))


def _start_kafka(folder: Path) -> tuple[int, str]:
    authority = make_authority(folder / "tls", "kafka", "client")
    certificate, key = authority.signed("kafka")
    store = folder / "tls" / "store.pem"
    store.write_text(key.read_text() + certificate.read_text())
    sasl, mutual = (f"127.0.0.1:{free_port()}" for _ in range(2))
    node = engines.KafkaNode(
        folder,
        (f"SASL_SSL://{sasl}", f"SSL://{mutual}"),
        {
            "ssl.keystore.type": "PEM",
            "ssl.keystore.location": str(store),
            "ssl.truststore.type": "PEM",
            "ssl.truststore.location": str(authority.file),
            "listener.name.ssl.ssl.client.auth": "required",
            "sasl.enabled.mechanisms": ",".join((*_SCRAM, "PLAIN")),
            "listener.name.sasl_ssl.plain.sasl.jaas.config": (
                f'{_LOGIN}.plain.PlainLoginModule required user_{USER}="{PASSWORD}";'
            ),
            **{
                f"listener.name.sasl_ssl.{one.lower()}.sasl.jaas.config": (
                    f"{_LOGIN}.scram.ScramLoginModule required;"
                )
                for one in _SCRAM
            },
        },
        [word for one in _SCRAM for word in ("--add-scram", f'{one}=[name={USER},password="{PASSWORD}"]')],
    )
    return node.process.pid, f"{sasl} {mutual} {node.address} {authority.folder}"


@dataclass(frozen=True, slots=True)
class SecurePostgres:
    """A server that requires TLS. `address` has no TLS parameters."""

    address: str
    authority: Authority

    def over_tls(self, address: str) -> str:
        """`address` with the parameters that verify the server."""
        return f"{address}?sslmode=verify-full&sslrootcert={self.authority.file}"


def secure_postgres() -> SecurePostgres:
    """A running PostgreSQL with `ssl = on` that accepts `hostssl` connections only."""
    address, folder = engines.shared("secure-postgres", _start_postgres).split(" ", 1)
    return SecurePostgres(address, Authority(Path(folder)))


def _start_postgres(folder: Path) -> tuple[int, str]:
    authority = make_authority(folder / "tls", "postgres")

    def prepare(data: Path, user: str | None) -> Mapping[str, str]:
        for file, name in zip(authority.signed("postgres"), ("server.crt", "server.key"), strict=True):
            shutil.copy(file, data / name)
            (data / name).chmod(0o600)
            if user is not None:
                shutil.chown(data / name, user, user)
        (data / "pg_hba.conf").write_text("hostssl all all 127.0.0.1/32 trust\n")
        return {"ssl": "on"}

    pid, address = engines.start_postgres(folder, prepare)
    return pid, f"{address} {authority.folder}"


@asynccontextmanager
async def fresh_databases(server: SecurePostgres, *names: str) -> AsyncIterator[dict[str, str]]:
    """URLs of new, empty databases over TLS, by name, dropped at the end."""
    made = {name: f"{name}_{uuid.uuid4().hex[:12]}" for name in names}
    base = server.address.rpartition("/")[0]
    connection = await asyncpg.connect(server.over_tls(server.address))
    try:
        for database in made.values():
            await connection.execute(f'CREATE DATABASE "{database}"')
        yield {name: server.over_tls(f"{base}/{database}") for name, database in made.items()}
        for database in made.values():
            await connection.execute(f'DROP DATABASE "{database}" WITH (FORCE)')
    finally:
        await connection.close()
