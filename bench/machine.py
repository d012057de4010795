"""What a result depends on: the machine, the interpreter, the commit and the load of other processes."""

from __future__ import annotations

import os
import platform
import subprocess
import sysconfig
from pathlib import Path


def describe_machine() -> str:
    """Cores, processor, system and Python in one line."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    model = _cpu_model() or platform.processor() or platform.machine()
    return (
        f"{cores} cores, {model}, {platform.system()} {platform.release()}, "
        f"{platform.python_implementation()} {platform.python_version()}"
        f"{' (PGO)' if is_optimised() else ''}"
    )


def is_optimised() -> bool:
    """Whether this Python was built with profile-guided optimisation."""
    flags, options = (sysconfig.get_config_var(name) or "" for name in ("PY_CORE_CFLAGS", "CONFIG_ARGS"))
    return "-fprofile-use" in flags or "--enable-optimizations" in options


def _cpu_model() -> str:
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except OSError:
        return ""
    names = (line.partition(":")[2].strip() for line in text.splitlines() if line.startswith("model name"))
    return next(names, "")


def describe_commit(checkout: Path) -> str:
    """`git describe` of a checkout; empty where it is none."""
    try:
        described = subprocess.run(
            ["git", "describe", "--always", "--dirty"],
            cwd=checkout,
            capture_output=True,
            text=True,
            check=False,
        )
    except OSError:
        return ""
    return described.stdout.strip()


def load_average() -> float:
    """Processes that ran or waited for a core in the last minute."""
    return os.getloadavg()[0]
