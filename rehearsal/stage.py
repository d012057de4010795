"""Where a rehearsal happens: its directory, its ports and what its processes are told."""

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

_OF_ANOTHER_INSTALLATION: Final = (
    "ATAA_ADMIN_KEY",
    "ATAA_DATABASE_URL_",
    "ATAA_INTERNAL_SECRET",
    "ATAA_KAFKA_",
    "ATAA_SMTP_",
    "ATAA_STRIPE_",
    "ATAA_TOKEN_SECRET",
)
"""A demo is an installation of its own: it must not reach the user's databases, mail or Stripe account."""


class CannotStage(Exception):
    """The rehearsal cannot start here; the message is one line that says what to change."""


@dataclass(frozen=True, slots=True)
class Stage:
    """One rehearsal's place: its directory, two ports, the secrets of its sandbox, and the slug of its drive.

    `shared` says that the system ran before and goes on afterwards, so that its books hold other money too.
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
        """Where the public door is."""
        return f"http://{_HOST}:{self.gateway_port}"

    @property
    def sandbox_url(self) -> str:
        """Where the Stripe sandbox is."""
        return f"http://{_HOST}:{self.sandbox_port}"

    @property
    def overlay_url(self) -> str:
        """What to open while it runs."""
        return f"{self.gateway_url}/overlay/{self.drive}"

    def own_environment(self, environment: Mapping[str, str]) -> dict[str, str]:
        """The user's settings, but nothing that leads out of the demo."""
        return {
            name: value
            for name, value in environment.items()
            if not name.startswith(_OF_ANOTHER_INSTALLATION)
        }

    def embedded_environment(self, environment: Mapping[str, str]) -> dict[str, str]:
        """The settings of the embedded process."""
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
        """The sandbox's settings, its secrets among them: everybody may read a command line."""
        kept = {name: value for name, value in environment.items() if not name.startswith("ATAA_")}
        return kept | {
            "ATAA_STRIPE_API_KEY": self.stripe_key,
            "ATAA_STRIPE_WEBHOOK_SECRETS": self.webhook_secret,
        }


@contextmanager
def set_stage(data_dir: Path, gateway_port: int, sandbox_port: int) -> Iterator[Stage]:
    """An emptied `data_dir`/demo that is this process's alone, and two free ports. Raises CannotStage."""
    directory = data_dir.absolute() / "demo"
    with _alone(data_dir.absolute()):
        for port, setting in ((gateway_port, "ATAA_GATEWAY_PORT"), (sandbox_port, "ATAA_SANDBOX_PORT")):
            must_be_free(port, setting)
        _empty(directory)
        yield Stage(
            directory=directory,
            gateway_port=gateway_port,
            sandbox_port=sandbox_port,
            stripe_key=f"sk_test_{secrets.token_hex(16)}",
            webhook_secret=f"whsec_{secrets.token_hex(16)}",
        )


@contextmanager
def _alone(data_dir: Path) -> Iterator[None]:
    """Hold the lock beside the demo's directory, so that no second demo empties it meanwhile."""
    try:
        data_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
        lock = (data_dir / _LOCK).open("a+")
    except OSError as error:
        raise CannotStage(f"ATAA_DATA_DIR={data_dir}: cannot be written ({error.strerror})") from error
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            lock.seek(0)
            raise CannotStage(
                f"ATAA_DATA_DIR={data_dir}: another demo (process {lock.read().strip()}) is running here"
            ) from None
        lock.truncate(0)
        lock.write(str(os.getpid()))
        lock.flush()
        yield


def must_be_free(port: int, setting: str, owner: str = "") -> None:
    """Raises CannotStage where somebody listens on `port`, which `owner` needs and `setting` moves."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((_HOST, port))
        except OSError as error:
            needed = f" ({owner})" if owner else ""
            raise CannotStage(f"port {port}{needed} is in use; choose another with {setting}") from error


def _empty(directory: Path) -> None:
    """Empty a demo's directory, and no other's. Raises CannotStage."""
    try:
        directory.mkdir(exist_ok=True)
        entries = list(directory.iterdir())
        if directory.is_symlink() or (entries and not (directory / _MARK).is_file()):
            raise CannotStage(f"{directory} is not a demo's directory (no {_MARK} in it): not emptied")
        for entry in entries:
            if entry.name == _MARK:
                continue  # stays until the end: a demo killed while emptying must find its own again
            if entry.is_dir() and not entry.is_symlink():
                shutil.rmtree(entry)
            else:
                with suppress(FileNotFoundError):
                    entry.unlink()
        (directory / _MARK).write_text("Emptied at the start of each `make demo`.\n", encoding="utf-8")
    except OSError as error:
        raise CannotStage(f"{directory}: cannot be emptied ({error.strerror})") from error
