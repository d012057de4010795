"""What the gateway asks of a log's tree before it signs a head, and for those who verify one."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Annotated, Any

from fastapi import APIRouter, Response
from pydantic import Field

from backbone.database.database import Database
from backbone.http.caller import InternalDep
from backbone.http.fields import Body, Text
from backbone.http.problems import NotFound
from services.leaderboard import queries
from services.leaderboard.queries import DriveHead
from services.leaderboard.transparency.reading import LogTreeReader
from services.leaderboard.transparency.tiling import TILE, Tiling

Position = Annotated[int, Field(ge=0, le=2**53)]
Epoch = Annotated[int, Field(ge=1, le=2**31 - 1)]


class LogRef(Body):
    """The log of a drive, by id or slug; without an epoch, the present one's."""

    drive: Text
    epoch: Epoch | None = None


class HeadRequest(LogRef):
    """Which head is asked for: the newest, with a proof that the tree of `since` is a prefix of it."""

    since: Position | None = None


class TileRequest(LogRef):
    """A tile, or with no level a bundle of entries."""

    level: Annotated[int, Field(ge=0, le=63)] | None
    number: Position
    width: Annotated[int, Field(ge=1, le=TILE)]


class GiftRequest(LogRef):
    """The gift of a pledge, with its inclusion path in the tree of `size` where it is in it."""

    pledge: Text
    size: Position


def add_transparency(router: APIRouter, database: Database, tiling: Tiling) -> None:
    """Add the internal routes."""

    @asynccontextmanager
    async def opened(ref: LogRef) -> AsyncIterator[tuple[DriveHead, int, LogTreeReader]]:
        async with database.reading() as session:
            drive = queries.existing(await queries.find_drive(session, ref.drive))
            epoch = ref.epoch or drive.epoch
            tree = await LogTreeReader.open(session, (drive.drive_id, epoch))
            lacks = epoch == drive.epoch and tree.size < drive.sequence
            if not lacks:
                if epoch > drive.epoch:
                    raise NotFound("No such epoch.")
                yield drive, epoch, tree
                return
        await tiling.bring_up_to_date((drive.drive_id, epoch))
        async with database.reading() as session:
            yield drive, epoch, await LogTreeReader.open(session, (drive.drive_id, epoch))

    @router.post("/internal/log/head", include_in_schema=False)
    async def read_head(_caller: InternalDep, request: HeadRequest) -> dict[str, Any]:
        """The head of the tree. `consistency` is None where the tree is smaller than `since`."""
        async with opened(request) as (drive, epoch, tree):
            since = request.since
            proof = None
            if since is not None and since <= tree.size:
                proof = _encoded(await tree.consistency(since, tree.size))
            root = await tree.root(tree.size)
        return {
            "drive": drive.drive_id,
            "epoch": epoch,
            "present": epoch == drive.epoch,
            "logged": drive.sequence,
            "size": tree.size,
            "root": b64encode(root).decode(),
            "consistency": proof,
        }

    @router.post("/internal/log/tile", include_in_schema=False)
    async def read_tile(_caller: InternalDep, request: TileRequest) -> Response:
        """A tile or a bundle as C2SP tlog-tiles defines them."""
        async with opened(request) as (_, _, tree):
            if request.level is None:
                found = await tree.entries(request.number, request.width)
            else:
                found = await tree.tile(request.level, request.number, request.width)
        if found is None:
            raise NotFound("The log has no such tile.")
        return Response(found, media_type="application/octet-stream")

    @router.post("/internal/log/gift", include_in_schema=False)
    async def read_gift(_caller: InternalDep, request: GiftRequest) -> dict[str, Any]:
        """The row of a gift; None where none is in the log."""
        async with opened(request) as (_, _, tree):
            gift = await tree.gift(request.pledge)
            if gift is None:
                return {"gift": None}
            path = None
            if gift.position < request.size <= tree.size:
                path = _encoded(await tree.inclusion(gift.position, request.size))
        leaf = b64encode(gift.leaf).decode()
        return {"gift": {"row": gift.row, "leaf_hash": leaf, "index": gift.position, "inclusion_path": path}}


def _encoded(hashes: Sequence[bytes]) -> list[str]:
    return [b64encode(one).decode() for one in hashes]
