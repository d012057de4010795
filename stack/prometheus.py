"""Prometheus for the stack, where it is installed: it scrapes every process's metrics port."""

from __future__ import annotations

import os
import shutil
from string import Template
from typing import Final

from stack.layout import HOST, REPOSITORY, Layout

DEPLOY: Final = REPOSITORY / "deploy" / "prometheus"


def find_prometheus() -> str | None:
    """The program, None where it is not installed; it is optional."""
    return shutil.which("prometheus")


def serve(layout: Layout) -> None:
    """Write Prometheus's configuration, and replace this process by it."""
    program = find_prometheus()
    if program is None:
        return
    home = layout.directory / "prometheus"
    home.mkdir(exist_ok=True)
    config = home / "prometheus.yml"
    text = Template((DEPLOY / "prometheus.yml").read_text(encoding="utf-8"))
    config.write_text(text.substitute(layout.ports, rules=DEPLOY), encoding="utf-8")
    os.chdir(home)
    os.execv(
        program,
        [
            *(program, f"--config.file={config}", f"--storage.tsdb.path={home / 'data'}"),
            *(f"--web.listen-address={HOST}:{layout.ports['prometheus']}", "--log.level=warn"),
        ],
    )
