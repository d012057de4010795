"""Every command of the API guide is run, in order, in one shell."""

from __future__ import annotations

import asyncio
import json
import re
from pathlib import Path

import pytest

from tests.journeys.embedded_system import ROOT, EmbeddedSystem

GUIDE = (ROOT / "docs" / "api-guide.md").read_text()
BLOCKS = dict(re.findall(r"<!-- test: (\w+) -->\n```sh\n(.*?)```", GUIDE, flags=re.DOTALL))


@pytest.mark.asyncio(loop_scope="session")
async def test_a_developer_follows_the_guide_from_key_to_refund(
    system: EmbeddedSystem, tmp_path: Path
) -> None:
    outputs = await run_blocks(system, tmp_path)
    assert '"state":"live"' in outputs["drive"]
    assert json.loads(outputs["pledge"])["checkout"]["url"]
    assert '"payment_status":"paid"' in outputs["pay"].replace(" ", "")
    assert '"status":"paid"' in outputs["pay"]
    assert '"raised":' in outputs["watch"]
    assert "event: totals" in outputs["watch"]
    refund = json.loads(outputs["refund"])
    assert refund["amount"] == {"currency": "USD", "value": "5.00"}
    assert refund["status"] in ("pending", "succeeded")
    await system.wait_for_raised("warm-winter", "20.00")
    assert 'data-key="pk_live_' in (tmp_path / "give.html").read_text()
    assert "data-drive" in outputs["embed"]
    (problem,) = re.findall(r"```json\n(.*?)```", GUIDE, flags=re.DOTALL)
    assert json.loads(outputs["error"]) | {"request_id": ""} == json.loads(problem) | {"request_id": ""}


@pytest.mark.asyncio(loop_scope="session")
async def test_the_guide_names_every_type_of_problem(system: EmbeddedSystem) -> None:
    document = (await system.request("GET", "/openapi.json")).body
    types = set(re.findall(r'"/problems/([a-z-]+)"', json.dumps(document["paths"])))
    named = set(re.findall(r"`(?:/problems/)?([a-z-]+)`", GUIDE))
    assert types - named == {"bad-webhook"}  # Stripe's alone


def test_every_command_of_the_guide_is_run() -> None:
    assert set(re.findall(r"```sh\n(.*?)```", GUIDE, flags=re.DOTALL)) == set(BLOCKS.values())


async def run_blocks(system: EmbeddedSystem, folder: Path) -> dict[str, str]:
    """Run the guide's blocks in one shell, but for where this system is; what each printed."""
    script = "set -e\n" + "\n".join(f"exec > {name}.out\n{block}" for name, block in BLOCKS.items())
    script = script.replace("http://127.0.0.1:8000", system.url)
    script = script.replace(".ataa/keys.json", str(system.folder / "data" / "keys.json"))
    script = script.replace("--max-time 2", "--max-time 5")  # the first frame comes late on a busy machine
    shell = await asyncio.create_subprocess_exec(
        "bash", "-c", script, cwd=folder, stderr=asyncio.subprocess.PIPE
    )
    _, errors = await shell.communicate()
    assert shell.returncode == 0, errors.decode()
    return {name: (folder / f"{name}.out").read_text() for name in BLOCKS}
