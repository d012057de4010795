"""The image: its content, its user and its build context."""

from __future__ import annotations

import re
import subprocess
import sys

from tests.deploy.manifests import ROOT, tool

FILE = (ROOT / "Dockerfile").read_text()
FINAL = FILE[FILE.index(" AS run") :]
COMMANDS = (
    *("services.pledges.app", "services.payments.app", "services.leaderboard.app", "services.notify.app"),
    *("gateway.app", "embedded.app", "sandbox.server", "backbone.process", "backbone.bus.kafka"),
)
SEEN = """
import sys
root, *names = sys.argv[1:]
for name in names:
    __import__(name)
files = {name: getattr(module, "__file__", None) or "" for name, module in sys.modules.items()}
ours = [name for name, file in files.items() if file.startswith(root) and "site-packages" not in file]
print(*{name.partition(".")[0] for name in ours})
"""


def copied() -> set[str]:
    """The directories and files that the build copies."""
    return set(re.findall(r"^COPY (?!--)(\S+) ", FILE, re.M))


def test_every_package_that_a_command_imports_is_in_the_image() -> None:
    ran = subprocess.run(
        [sys.executable, "-c", SEEN, f"{ROOT}/", *COMMANDS],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    packages = set(ran.stdout.split())
    assert {"backbone", "services", "gateway", "embedded", "sandbox"} <= packages
    assert packages <= copied()


def test_build_context_has_only_what_is_copied() -> None:
    lines = (ROOT / ".dockerignore").read_text().splitlines()
    rules = [line for line in lines if line and not line.startswith("#")]
    assert rules[0] == "*"
    assert {rule.removeprefix("!") for rule in rules if rule.startswith("!")} == copied()


def test_dependencies_are_locked_wheels() -> None:
    install = FILE[FILE.index("pip --python") :].split("WORKDIR")[0]
    assert "--require-hashes --only-binary :all: -r /tmp/requirements.lock" in install


def test_image_runs_unprivileged_without_an_installer() -> None:
    assert "USER 10001:10001" in FINAL
    assert 'ENTRYPOINT ["python", "-m"]' in FINAL
    assert "pip uninstall" in FINAL
    assert not re.search(r"apt-get|pip install|curl|wget|\bADD\b", FINAL)
    assert re.search(r"^ARG PYTHON=python:3\.11-slim-bookworm$", FILE, re.M)


def test_dockerfile_passes_hadolint() -> None:
    linted = subprocess.run(
        [tool("hadolint"), "Dockerfile"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert linted.returncode == 0, linted.stdout


def test_tools_lock_has_hashes_and_no_addresses() -> None:
    text = (ROOT / "requirements-k8s.lock").read_text()
    pinned = [line for line in text.splitlines() if re.match(r"^[a-z0-9]", line)]
    assert pinned
    assert all("==" in line and line.endswith("\\") for line in pinned)
    assert "://" not in text
