"""A demo on the stack that `make stack` started: it opens its own drive and starts or stops no process."""

import asyncio
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from rehearsal.installation import CannotPrepare, Installation
from stack import processes
from stack.layout import read_json, read_ports
from stack.memory import own_bytes, resident_bytes
from stack.settings import SERVICES
from stack.supervisor import read_supervisor_state

_MEASURE_S: Final = 1.0
_MEASURED: Final = ("postgres", "kafka", "prometheus", "sandbox", *SERVICES)


def find_running(data_dir: Path) -> Installation | None:
    """The installation of the stack that runs in `data_dir`; None where none of its services runs.

    Raises CannotPrepare where only some services run, or where it uses a Stripe account: the demo's donors
    pay with test cards at the sandbox.
    """
    directory = data_dir.absolute() / "stack"
    running = [name for name in SERVICES if processes.find(name, directory / "run").pid is not None]
    if not running:
        return None
    if stopped := [name for name in SERVICES if name not in running]:
        raise CannotPrepare(
            f"the stack in {directory} runs without {', '.join(stopped)}; "
            "make stack starts the missing services, make stack-down stops the others"
        )
    if processes.find("sandbox", directory / "run").pid is None:
        raise CannotPrepare(f"the stack in {directory} uses a Stripe account; the demo needs the sandbox")
    ports, secrets = read_ports(directory), read_json(directory / "secrets.json")
    return Installation(
        directory=directory,
        gateway_port=ports["gateway"],
        sandbox_port=ports["sandbox"],
        stripe_key=secrets["stripe_key"],
        webhook_secret=secrets["stripe_webhook"],
        drive=f"winter-{int(time.time())}",
        shared=True,
    )


class RunningStack:
    """The processes of a running stack, measured during the demo; the stack's supervisor restarts them."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._baseline = self._restarts()
        self._peaks: dict[str, int] = {}

    @property
    def restarts(self) -> int:
        """How many times a process was restarted since the demo began."""
        return self._restarts() - self._baseline

    async def keep_alive(self) -> None:
        """Measure memory until cancelled."""
        while True:
            self.measure()
            await asyncio.sleep(_MEASURE_S)

    def measure(self) -> Mapping[str, float]:
        """The peak memory of each process so far, in MB (proportional set size)."""
        for name in _MEASURED:
            pid = processes.find(name, self._directory / "run").pid
            if pid is not None:
                held = resident_bytes(pid) if name == "postgres" else own_bytes(pid)
                self._peaks[name] = max(self._peaks.get(name, 0), held)
        return {name: round(peak / 1e6, 1) for name, peak in self._peaks.items()}

    def _restarts(self) -> int:
        return sum((read_supervisor_state(self._directory).restarts or {}).values())
