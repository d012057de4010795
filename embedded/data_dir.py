"""The data directory: its lock, and the JSON files with keys, secrets and ports."""

from __future__ import annotations

import fcntl
import json
import os
import secrets
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final

from backbone.settings import exit_with_error

_PROBE: Final = b"\0" * 65536


class DataDir:
    """The data directory of an embedded run, locked by this process until it ends.

    A directory that is locked, read-only or full ends the process with a one-line message. Files created
    from here on are readable by their owner only: they hold donors' addresses.
    """

    def __init__(self, path: Path) -> None:
        os.umask(0o077)
        self.path = path.absolute()
        try:
            self.path.mkdir(parents=True, exist_ok=True, mode=0o700)
            probe = self.path / ".probe"
            probe.write_bytes(_PROBE)
            probe.unlink()
            self._lock = os.open(self.path / "lock", os.O_RDWR | os.O_CREAT, 0o600)
        except OSError as error:
            exit_with_error(f"ATAA_DATA_DIR: {self.path} is not writable ({error.strerror})")
        self._hold()

    def _hold(self) -> None:
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            owner = os.pread(self._lock, 20, 0).decode(errors="replace").strip() or "another process"
            exit_with_error(
                f"ATAA_DATA_DIR: {self.path} is in use by process {owner}; stop it or choose another"
            )
        os.truncate(self._lock, 0)
        os.pwrite(self._lock, str(os.getpid()).encode(), 0)

    def read(self, name: str) -> dict[str, str]:
        """A JSON file's values as strings; empty if it does not exist."""
        try:
            found = json.loads((self.path / name).read_text())
        except FileNotFoundError:
            return {}
        except ValueError:
            exit_with_error(f"ATAA_DATA_DIR: {self.path / name} is not valid JSON; repair or remove it")
        return {str(key): str(value) for key, value in found.items()}

    def write(self, name: str, content: Mapping[str, object]) -> None:
        """Write a JSON file atomically, readable by its owner only."""
        target = self.path / name
        draft = target.with_suffix(".new")
        with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
            json.dump(content, file, indent=2)
            file.write("\n")
            file.flush()
            os.fsync(file.fileno())
        draft.replace(target)

    def log_key(self, new: Callable[[], str]) -> str:
        """The key of the public logs: generated once. It must be kept with the data."""
        kept = self.read("log-key.json")
        if not kept.get("log_key"):
            kept = {"log_key": new()}
            self.write("log-key.json", kept)
        return kept["log_key"]

    def secrets(self) -> dict[str, str]:
        """The secrets of this directory: generated once, except `internal`, which is new at each start."""
        kept = self.read("secrets.json")
        made = {
            "token": secrets.token_hex(32),
            "stripe_key": f"sk_test_{secrets.token_hex(16)}",
            "stripe_webhook": f"whsec_{secrets.token_hex(24)}",
            **kept,
            "internal": secrets.token_hex(32),
        }
        self.write("secrets.json", made)
        return made
