"""Checkpoints, tiles and proofs over HTTP, and heads that are not signed."""

from __future__ import annotations

import json
from base64 import b64decode
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import REGISTRY
from sqlalchemy import delete, update

from backbone.database.database import Database
from backbone.transparency.merkle import includes, leaf_hash
from gateway.transparency.note_keys import NoteSigner
from gateway.transparency.tile_paths import TileRef, format_path, parse
from services.leaderboard.tables import drive_log
from services.leaderboard.transparency.tables import log_tiles, log_trees, logged_gifts
from tests.backbone.test_merkle import tree_hash
from tests.gateway.harness import PLEDGE
from tests.leaderboard.builders import DRIVE
from tests.leaderboard.log_trees import remove_after
from tests.transparency.served_log import PREFIX, SIGNER, TOKEN, ServedLog, gifts, served_log

PROOF = f"/v1/pledges/{PLEDGE}/proof?token={TOKEN}"


async def forget_tiles(database: Database) -> None:
    async with database.transaction() as session:
        for table in (log_tiles, log_trees, logged_gifts):
            await session.execute(delete(table))


async def problem(log: ServedLog, path: str) -> tuple[int, str]:
    status, _, body = await log.read(path)
    return status, json.loads(body)["type"]


def refused() -> float:
    return REGISTRY.get_sample_value("ataa_log_heads_refused_total") or 0.0


async def test_checkpoint_has_origin_size_root_and_two_signatures(tmp_path: Path) -> None:
    async with served_log(tmp_path) as log:
        status, headers, body = await log.read(f"{PREFIX}/checkpoint")
        assert (status, headers["content-type"]) == (200, "text/plain; charset=utf-8")
        assert headers["cache-control"] == "public, max-age=1, s-maxage=1"
        origin, size, root, empty, *signatures, end = body.decode().split("\n")
        assert (origin, size, empty, end) == (f"ataa.test/v1/drives/{DRIVE}/1", "0", "", "")
        assert b64decode(root) == tree_hash([])
        assert [line.split(" ")[:2] for line in signatures] == [["—", origin], ["—", "ataa.test"]]
        assert (await log.read("/.well-known/ataa-log-key"))[2].decode() == f"{SIGNER.verifier_key()}\n"


async def test_donors_proof_verifies_against_the_checkpoint_it_carries(tmp_path: Path) -> None:
    async with served_log(tmp_path) as log:
        assert await problem(log, PROOF) == (409, "/problems/not-counted-yet")
        await log.append(gifts(300, ours=270))
        status, headers, body = await log.read(PROOF)
        assert (status, headers["cache-control"]) == (200, "private, no-store")
        proof = json.loads(body)
        (row,) = json.loads((await log.read(f"{PREFIX}/events?after=269&limit=1"))[2])["data"]
        assert (proof["row"], proof["index"], proof["tree_size"]) == (row, 269, 300)
        leaf = leaf_hash(json.dumps(row, sort_keys=True, separators=(",", ":")).encode())
        assert b64decode(proof["leaf_hash"]) == leaf
        path = [b64decode(one) for one in proof["inclusion_path"]]
        root = b64decode(proof["checkpoint"].split("\n")[2])
        assert includes(leaf, 269, 300, path, root)


@pytest.mark.parametrize(
    "path",
    [
        f"/v1/pledges/{PLEDGE}/proof",
        f"/v1/pledges/{PLEDGE}/proof?token=wrong",
        f"/v1/pledges/{PLEDGE}/proof?token=%F0%9F%98%80",
        "/v1/pledges/plg_01aaaaaaaaaaaaaaaaaaaaaaaa/proof?token=t",
        "/v1/pledges/nobody/proof?token=t",
        "/v1/drives/nobody/checkpoint",
        f"{PREFIX}/2/checkpoint",
        f"{PREFIX}/0/checkpoint",
        f"{PREFIX}/99999999999999999999/checkpoint",
        f"{PREFIX}/tile/0/001",
        f"{PREFIX}/tile/0/000.p/4",
        f"{PREFIX}/tile/0/0",
        f"{PREFIX}/tile/entries/000",
        f"{PREFIX}/tile/64/000",
        f"{PREFIX}/tile/0/x999/x999/x999/x999/999",
        f"{PREFIX}/tile/%00/000",
        f"{PREFIX}/1/tile/0/000",
    ],
)
async def test_what_does_not_exist_is_not_found(tmp_path: Path, path: str) -> None:
    async with served_log(tmp_path) as log:
        await log.append(gifts(3))
        assert await problem(log, path) == (404, "/problems/not-found")


async def test_full_tiles_are_cached_for_an_hour(tmp_path: Path) -> None:
    async with served_log(tmp_path) as log:
        await log.append(gifts(300))
        found = {}
        for path in ("tile/0/000", "tile/0/001.p/44", "1/tile/0/000", "1/tile/entries/001.p/44"):
            status, headers, body = await log.read(f"{PREFIX}/{path}")
            assert (status, headers["content-type"]) == (200, "application/octet-stream"), path
            found[path] = (headers["cache-control"].removeprefix("public, "), len(body))
        assert found.pop("1/tile/entries/001.p/44")[0] == "max-age=1, s-maxage=1"
        assert found == {
            "tile/0/000": ("max-age=3600", 8192),
            "tile/0/001.p/44": ("max-age=1, s-maxage=1", 44 * 32),
            "1/tile/0/000": ("max-age=3600", 8192),
        }


async def test_without_a_key_nothing_of_the_log_is_served(tmp_path: Path) -> None:
    async with served_log(tmp_path, signer=None) as log:
        for path in (f"{PREFIX}/checkpoint", f"{PREFIX}/tile/0/000", "/.well-known/ataa-log-key", PROOF):
            assert await problem(log, path) == (404, "/problems/log-not-signed")


async def test_tiles_that_are_made_again_continue_the_log(tmp_path: Path) -> None:
    async with served_log(tmp_path) as log:
        await log.append(gifts(600)[:300])
        first = await log.checkpoint()
        await forget_tiles(log.database)
        log.expire_head()
        assert await log.checkpoint() == first
        await log.append(gifts(600)[300:])
        log.expire_head()
        assert (await log.checkpoint())[:2] == [first[0], "600"]


async def test_log_restored_to_an_older_state_is_signed_again_once_it_has_the_same_rows(
    tmp_path: Path,
) -> None:
    async with served_log(tmp_path) as log:
        await log.append(gifts(300))
        signed, before = await log.checkpoint(), refused()
        await remove_after(log.database, 200)
        await forget_tiles(log.database)
        log.expire_head()
        assert await problem(log, f"{PREFIX}/checkpoint") == (503, "/problems/log-inconsistent")
        assert refused() == before + 1
        await log.append(gifts(300)[200:])
        assert await log.checkpoint() == signed


async def test_other_rows_after_a_restore_are_signed_in_a_new_epoch_only(tmp_path: Path) -> None:
    async with served_log(tmp_path) as log:
        await log.append(gifts(300))
        await log.checkpoint()
        await remove_after(log.database, 0)
        await forget_tiles(log.database)
        await log.append(gifts(400, amount=1))
        log.expire_head()
        assert await problem(log, f"{PREFIX}/checkpoint") == (503, "/problems/log-inconsistent")
        assert await problem(log, PROOF) == (503, "/problems/log-inconsistent")
        await remove_after(log.database, 0)
        await log.append(gifts(400, epoch=2, amount=1))
        origin, size, *_ = await log.checkpoint()
        assert (origin, size) == (f"ataa.test/v1/drives/{DRIVE}/2", "400")


async def test_row_that_was_changed_after_it_was_signed_is_not_proven(tmp_path: Path) -> None:
    async with served_log(tmp_path) as log:
        await log.append(gifts(300, ours=7))
        await log.checkpoint()
        async with log.database.transaction() as session:
            changed = update(drive_log).where(drive_log.c.sequence == 7).values(amount=1)
            await session.execute(changed)
        assert await problem(log, PROOF) == (503, "/problems/log-inconsistent")


@given(st.none() | st.integers(0, 63), st.integers(0, 2**40), st.integers(1, 256))
def test_path_of_a_tile_names_it(level: int | None, number: int, width: int) -> None:
    ref = TileRef(level, number, width)
    assert parse(format_path(ref)) == ref


@pytest.mark.parametrize(
    "path",
    [
        *("0/1234", "0/x000/001", "00/001", "0/001.p/0", "0/001.p/256", "0/001.p/01", "0/x001", "-1/000"),
        *("0/001/", "0//001", "entries/x01/001", "0/٠٠١", "64/000", "data/000", "0/001.p/", ""),
    ],
)
def test_paths_in_another_form_name_no_tile(path: str) -> None:
    assert parse(path) is None


def test_index_is_encoded_as_the_specification_shows_it() -> None:
    assert format_path(TileRef(3, 1234067, 256)) == "3/x001/x234/067"


@given(st.binary(min_size=32, max_size=32))
def test_signer_key_is_read_as_it_is_written(seed: bytes) -> None:
    signer = NoteSigner("give.example.org", seed)
    assert NoteSigner.parse(signer.encode()).verifier_key() == signer.verifier_key()


@pytest.mark.parametrize(
    "text",
    [
        "",
        "PRIVATE+KEY+a+00000000+" + "A" * 44,
        SIGNER.encode().replace("ataa.test", "other.test"),
        SIGNER.encode()[:-2],
        SIGNER.encode() + "\n",
    ],
)
def test_damaged_signer_key_is_refused_without_showing_it(text: str) -> None:
    with pytest.raises(ValueError, match="must") as refused_key:
        NoteSigner.parse(text)
    assert not text or text not in str(refused_key.value)
