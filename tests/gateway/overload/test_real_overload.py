"""More pledges than the real services can store in time: none accepted is lost, and all features return."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from gateway.overload import ladder, readings
from gateway.overload.shedding import LEAST_PLEDGES
from tests.gateway.harness import ADMIN, bearer
from tests.gateway.whole_system import WholeSystem, whole_system
from tests.waiting import until

PLEDGE = {"amount": {"currency": "USD", "value": "25.00"}}


async def pledge(system: WholeSystem, key: str) -> tuple[int, Any, Any]:
    headers = {**bearer(ADMIN), "Idempotency-Key": key}
    url = f"{system.url}/v1/drives/winter/pledges"
    async with system.session.post(url, json=PLEDGE, headers=headers) as reply:
        return reply.status, reply.headers, await reply.json(content_type=None)


async def totals(system: WholeSystem) -> Any:
    async with system.session.get(f"{system.url}/v1/drives/winter/totals") as reply:
        return await reply.json()


async def listed(system: WholeSystem) -> set[str]:
    found: set[str] = set()
    after = ""
    while True:
        url = f"{system.url}/v1/pledges?limit=100{after}"
        async with system.session.get(url, headers=bearer(ADMIN)) as reply:
            page = await reply.json()
        found.update(one["id"] for one in page["data"])
        if page["next"] is None:
            return found
        after = f"&after={page['next']}"


async def test_overload_refuses_what_cannot_be_stored_in_time_and_loses_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(readings, "EVERY_S", 0.01)
    monkeypatch.setattr(ladder, "ENTER_AFTER_S", 0.0)
    monkeypatch.setattr(ladder, "LEAVE_AFTER_S", 0.1)
    async with whole_system(tmp_path, pledges_wait_s=0.01) as system:
        replies: dict[str, tuple[int, Any, Any]] = {}
        seen: set[str] = set()

        async def keep_pledging(donor: int) -> None:
            number = 0
            while not {"pledges", "a refusal"} <= seen:
                key = f"{donor}-{number}"
                replies[key] = await pledge(system, key)
                if replies[key][0] == 503:
                    seen.add("a refusal")
                number += 1

        async def note_degraded() -> bool:
            seen.update((await totals(system)).get("degraded", ()))
            return "pledges" in seen

        donors = [asyncio.create_task(keep_pledging(number)) for number in range(2 * LEAST_PLEDGES)]
        await until(note_degraded)
        await asyncio.gather(*donors)
        assert {status for status, *_ in replies.values()} == {201, 503}
        for status, headers, problem in replies.values():
            if status == 503:
                assert int(headers["Retry-After"]) >= 1
                assert problem["type"] == "/problems/overloaded"

        async def all_is_back() -> bool:
            return "degraded" not in await totals(system)

        await until(all_is_back)
        again = next(key for key, (status, *_) in replies.items() if status == 503)
        replies[again] = await pledge(system, again)
        assert replies[again][0] == 201
        accepted = {body["id"] for status, _, body in replies.values() if status == 201}
        assert len(accepted) == sum(status == 201 for status, *_ in replies.values())
        assert accepted == await listed(system)
