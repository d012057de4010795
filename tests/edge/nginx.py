"""Starts nginx with the configuration of deploy/edge, on free ports and in a folder of its own."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import subprocess
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Final

import pytest

from tests.ports import free_port
from tests.waiting import PATIENCE_S, until

SOURCE: Final = Path(__file__).parents[2] / "deploy" / "edge"
NCHAN: Final = Path("/usr/lib/nginx/modules/ngx_nchan_module.so")


def need_nginx(*, nchan: bool = False) -> None:
    """Skip the test without nginx (and nchan), or fail it where ATAA_REQUIRE_REAL=1."""
    if shutil.which("nginx", path=_PATH) is None:
        _missing("nginx is not installed (on Debian: apt install nginx)")
    if nchan and not NCHAN.is_file():
        _missing("nchan is not installed (on Debian: apt install libnginx-mod-nchan)")


def _missing(reason: str) -> None:
    if os.environ.get("ATAA_REQUIRE_REAL") == "1":
        pytest.fail(f"ATAA_REQUIRE_REAL=1, but {reason}", pytrace=False)
    pytest.skip(reason)


_PATH: Final = f"{os.environ.get('PATH', '')}:/usr/sbin"


class Edge:
    """A running nginx: its public port, the port of nchan's publisher, and its folder."""

    def __init__(self, folder: Path, main: str) -> None:
        self.folder = folder
        self.main = main
        self.port = free_port()
        self.publisher_port = free_port()
        self._refresh_port = free_port()
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        """The public address."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def log(self) -> str:
        """nginx's error log."""
        file = self.folder / "run" / "error.log"
        return file.read_text(errors="replace") if file.exists() else ""

    def write(self, gateway_port: int, site: Mapping[str, str]) -> None:
        """Copy the configuration, with the files of `site` replaced."""
        shutil.copytree(SOURCE, self.folder / "conf")
        (self.folder / "run").mkdir()
        ports = {"8079": self._refresh_port, "8080": self.port, "8078": self.publisher_port}
        for file in (self.folder / "conf" / "site").glob("*.conf"):
            text = file.read_text()
            for shown, port in ports.items():
                text = text.replace(f"127.0.0.1:{shown}", f"127.0.0.1:{port}")
            file.write_text(text)
        replaced = {
            "main.conf": "user root;\n" if os.geteuid() == 0 else "",
            "gateways.conf": f"server 127.0.0.1:{gateway_port};\n",
            "stream_gateways.conf": f"server 127.0.0.1:{gateway_port} max_fails=0;\n",
            **site,
        }
        for name, text in replaced.items():
            on_port = text.replace("127.0.0.1:8080", f"127.0.0.1:{self.port}")
            (self.folder / "conf" / "site" / name).write_text(on_port)

    def start(self) -> None:
        """Start nginx in the foreground; it ends with `stop`, or with the test run, however that ends."""
        program = shutil.which("nginx", path=_PATH)
        assert program is not None
        arguments = ["-p", str(self.folder / "run"), "-c", str(self.folder / "conf" / self.main)]
        self._process = subprocess.Popen(
            ["setpriv", "--pdeathsig", "TERM", program, "-e", "stderr", "-g", "daemon off;", *arguments],
            start_new_session=True,
        )

    async def ready(self) -> None:
        """Wait until the public port accepts connections."""

        async def accepts() -> bool:
            assert self._process is not None
            if self._process.poll() is not None:
                raise RuntimeError(f"nginx ended with {self._process.returncode}:\n{self.log}")
            with suppress(OSError):
                _, writer = await asyncio.open_connection("127.0.0.1", self.port)
                writer.close()
                return True
            return False

        await until(accepts)

    def stop(self) -> None:
        """End nginx and its workers."""
        if self._process is not None and self._process.poll() is None:
            self._process.send_signal(signal.SIGTERM)
            self._process.wait(PATIENCE_S)

    def processes(self) -> list[int]:
        """The master and its workers."""
        assert self._process is not None
        return [self._process.pid, *_children(self._process.pid)]


def _children(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def pss_kib(pid: int) -> int:
    """A process's memory in KiB, its part of shared pages included."""
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        if line.startswith("Pss:"):
            return int(line.split()[1])
    return 0


def cpu_s(pid: int) -> float:
    """The CPU seconds that a process has used."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


@asynccontextmanager
async def running_edge(
    folder: Path, gateway_port: int, *, main: str = "nginx.conf", site: Mapping[str, str] | None = None
) -> AsyncIterator[Edge]:
    """An nginx in front of the gateway at `gateway_port`, until the block ends."""
    edge = Edge(folder, main)
    edge.write(gateway_port, site or {})
    edge.start()
    try:
        await edge.ready()
        yield edge
    finally:
        edge.stop()
