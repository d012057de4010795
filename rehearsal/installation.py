"""The installation of a rehearsal: its directory, its ports and its processes' settings."""

import fcntl
import os
import secrets
import shutil
import socket
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

DRIVE: Final = "winter"
_MARK: Final = ".ataa-demo"
_LOCK: Final = "demo.lock"
_HOST: Final = "127.0.0.1"

_FOREIGN_SETTINGS: Final = (
    "ATAA_ADMIN_KEY",
    "ATAA_DATABASE_URL_",
    "ATAA_INTERNAL_SECRET",
    "ATAA_KAFKA_",
    "ATAA_SMTP_",
    "ATAA_STRIPE_",
    "ATAA_TOKEN_SECRET",
)
"""Settings a demo ignores: it must not use the user's databases, mail server or Stripe account."""


class CannotPrepare(Exception):
    """The rehearsal cannot start; the message names in one line what to change."""


@dataclass(frozen=True, slots=True)
class Installation:
    """One installation: directory, two ports, the sandbox's secrets, and the drive's slug.

    A `shared` one runs before and after the rehearsal, so that its books hold other money too.
    """

    directory: Path
    gateway_port: int
    sandbox_port: int
    stripe_key: str
    webhook_secret: str
    drive: str = DRIVE
    shared: bool = False

    @property
    def gateway_url(self) -> str:
        """The address of the public API."""
        return f"http://{_HOST}:{self.gateway_port}"

    @property
    def sandbox_url(self) -> str:
        """The address of the Stripe sandbox."""
        return f"http://{_HOST}:{self.sandbox_port}"

    @property
    def overlay_url(self) -> str:
        """The address of the drive's overlay."""
        return f"{self.gateway_url}/overlay/{self.drive}"

    def own_environment(self, environment: Mapping[str, str]) -> dict[str, str]:
        """The user's environment without settings of external systems."""
        return {name: value for name, value in environment.items() if not name.startswith(_FOREIGN_SETTINGS)}

    def embedded_environment(self, environment: Mapping[str, str]) -> dict[str, str]:
        """The environment of the embedded process."""
        return self.own_environment(environment) | {
            "ATAA_DATA_DIR": str(self.directory),
            "ATAA_GATEWAY_PORT": str(self.gateway_port),
            "ATAA_SANDBOX_PORT": str(self.sandbox_port),
            "ATAA_STRIPE_API_BASE": self.sandbox_url,
            "ATAA_STRIPE_API_KEY": self.stripe_key,
            "ATAA_STRIPE_WEBHOOK_SECRETS": self.webhook_secret,
        }

    def sandbox_arguments(self) -> list[str]:
        """The command line of the sandbox, after the interpreter."""
        return [
            *("-m", "sandbox", "--port", str(self.sandbox_port), "--exit-with-parent"),
            *("--webhook-url", f"{self.gateway_url}/webhooks/stripe"),
            *("--data", str(self.directory / "sandbox.db")),
        ]

    def sandbox_environment(self, environment: Mapping[str, str]) -> dict[str, str]:
        """The sandbox's environment, with its secrets: any user can read a command line."""
        kept = {name: value for name, value in environment.items() if not name.startswith("ATAA_")}
        return kept | {
            "ATAA_STRIPE_API_KEY": self.stripe_key,
            "ATAA_STRIPE_WEBHOOK_SECRETS": self.webhook_secret,
        }


@contextmanager
def prepare_installation(data_dir: Path, gateway_port: int, sandbox_port: int) -> Iterator[Installation]:
    """Empty and lock `data_dir`/demo, and check that both ports are free. Raises CannotPrepare."""
    directory = data_dir.absolute() / "demo"
    with _hold_lock(data_dir.absolute()):
        for port, setting in ((gateway_port, "ATAA_GATEWAY_PORT"), (sandbox_port, "ATAA_SANDBOX_PORT")):
            require_free_port(port, setting)
        _empty_directory(directory)
        yield Installation(
            directory=directory,
            gateway_port=gateway_port,
            sandbox_port=sandbox_port,
            stripe_key=f"sk_test_{secrets.token_hex(16)}",
            webhook_secret=f"whsec_{secrets.token_hex(16)}",
        )


@contextmanager
def _hold_lock(data_dir: Path) -> Iterator[None]:
    """Hold a lock beside the demo's directory, so that no second demo empties it."""
    try:
        data_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
        lock = (data_dir / _LOCK).open("a+")
    except OSError as error:
        raise CannotPrepare(f"ATAA_DATA_DIR={data_dir}: cannot be written ({error.strerror})") from error
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            lock.seek(0)
            raise CannotPrepare(
                f"ATAA_DATA_DIR={data_dir}: another demo (process {lock.read().strip()}) is running here"
            ) from None
        lock.truncate(0)
        lock.write(str(os.getpid()))
        lock.flush()
        yield


def require_free_port(port: int, setting: str, owner: str = "") -> None:
    """Raises CannotPrepare where `port`, needed by `owner` and set by `setting`, is in use."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((_HOST, port))
        except OSError as error:
            needed = f" ({owner})" if owner else ""
            raise CannotPrepare(f"port {port}{needed} is in use; choose another with {setting}") from error


def _empty_directory(directory: Path) -> None:
    """Empty a directory that a demo has created. Raises CannotPrepare for any other."""
    try:
        directory.mkdir(exist_ok=True)
        entries = list(directory.iterdir())
        if directory.is_symlink() or (entries and not (directory / _MARK).is_file()):
            raise CannotPrepare(
                f"{directory} was not created by a demo (it has no {_MARK}) and is not emptied"
            )
        for credentials in entries:
            if credentials.name == _MARK:
                continue  # kept to the last: after a kill the directory must still be recognised
            if credentials.is_dir() and not credentials.is_symlink():
                shutil.rmtree(credentials)
            else:
                with suppress(FileNotFoundError):
                    credentials.unlink()
        (directory / _MARK).write_text("Emptied at the start of each `make demo`.\n", encoding="utf-8")
    except OSError as error:
        raise CannotPrepare(f"{directory}: cannot be emptied ({error.strerror})") from error
