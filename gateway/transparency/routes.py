"""The routes of public logs: checkpoints, the log key, tiles, and the proof of a donor's gift. No key."""

from __future__ import annotations

import json
from base64 import b64decode
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Final

from backbone.http.problems import Conflict, NotFound
from backbone.transparency.merkle import includes
from gateway.access.keys import KeyRing
from gateway.access.limits import RateLimits
from gateway.http.asgi import Header, Request, Response, json_response
from gateway.http.router import Cors, Route
from gateway.overload.proof_limit import ProofLimit
from gateway.transparency import tile_paths
from gateway.transparency.heads import Head, Heads, LogInconsistent
from gateway.transparency.log_client import LogClient

ReadPledge = Callable[[Request], Awaitable[Mapping[str, Any]]]
"""The pledge that a request's path and token name; raises `NotFound` for a wrong token."""

MAX_TILES: Final = 256
_TEXT: Final[Header] = (b"content-type", b"text/plain; charset=utf-8")
_BYTES: Final[Header] = (b"content-type", b"application/octet-stream")
_MUTABLE: Final[Header] = (b"cache-control", b"public, max-age=1, s-maxage=1")
_FULL_TILE: Final[Header] = (b"cache-control", b"public, max-age=3600")
"""Not immutable: rows that no signed head covers yet may be replaced by a restore, and an address without an
epoch belongs to another log once the epoch has risen."""
_PRIVATE: Final[Header] = (b"cache-control", b"private, no-store")


class NotCountedYet(Conflict):
    slug, title = "not-counted-yet", "The log has no row of this gift yet"


class Transparency:
    """What the routes do."""

    def __init__(
        self,
        heads: Heads,
        logs: LogClient,
        key_ring: KeyRing,
        limits: RateLimits,
        proofs: ProofLimit,
        read_pledge: ReadPledge,
    ) -> None:
        self._heads = heads
        self._logs = logs
        self._public = key_ring.public
        self._limits = limits
        self._proofs = proofs
        self._read_pledge = read_pledge
        self._tiles: OrderedDict[tuple[str, int, tile_paths.TileRef], bytes] = OrderedDict()

    def routes(self) -> list[Route]:
        """All routes."""
        live: Cors = "live"
        drive = "/v1/drives/{drive}"
        return [
            Route("GET", f"{drive}/checkpoint", self.read_checkpoint, live),
            Route("GET", f"{drive}/tile/{{…}}", self.read_tile, live),
            Route("GET", f"{drive}/{{epoch}}/checkpoint", self.read_checkpoint, live),
            Route("GET", f"{drive}/{{epoch}}/tile/{{…}}", self.read_tile, live),
            Route("GET", "/.well-known/ataa-log-key", self.read_key, live),
            Route("GET", "/v1/pledges/{id}/proof", self.read_proof, live),
        ]

    async def read_key(self, request: Request) -> Response:
        """GET /.well-known/ataa-log-key: the verifier key of all logs."""
        self._limits.spend(self._public, request.address)
        key = self._heads.signer().verifier_key()
        return Response(200, [_TEXT, (b"cache-control", b"public, max-age=300")], f"{key}\n".encode())

    async def read_checkpoint(self, request: Request) -> Response:
        """GET …/checkpoint: the newest signed head."""
        self._limits.spend(self._public, request.address)
        drive, epoch = _log_of(request)
        with self._proofs:
            head = await self._heads.newest(drive, epoch)
        return Response(200, [_TEXT, _MUTABLE], head.note.encode())

    async def read_tile(self, request: Request) -> Response:
        """GET …/tile/…: hashes or entries."""
        self._limits.spend(self._public, request.address)
        self._heads.signer()
        drive, epoch = _log_of(request)
        ref = tile_paths.parse("/".join(request.path.split("/")[len(request.params) + 4 :]))
        if ref is None:
            raise NotFound("No such tile.")
        with self._proofs:
            tile = await self._tile(drive, epoch, ref)
        return Response(200, [_BYTES, _FULL_TILE if ref.is_full else _MUTABLE], tile)

    async def _tile(self, drive: str, epoch: int | None, ref: tile_paths.TileRef) -> bytes:
        """Full tiles of an epoch are kept, as many as `MAX_TILES`."""
        kept = None if epoch is None else self._tiles.get((drive, epoch, ref))
        if kept is not None:
            return kept
        tile = await self._logs.tile(drive, epoch, ref)
        if epoch is not None and ref.is_full:
            self._tiles[drive, epoch, ref] = tile
            while len(self._tiles) > MAX_TILES:
                self._tiles.popitem(last=False)
        return tile

    async def read_proof(self, request: Request) -> Response:
        """GET /v1/pledges/{id}/proof?token=: the row of a donor's gift, and the proof that it is in the log.

        A gift that is not in the log yet, or not in the drive that was pledged to: `NotCountedYet`.
        """
        self._limits.spend(self._public, request.address)
        self._heads.signer()
        with self._proofs:
            pledge = await self._read_pledge(request)
            drive, pledge_id = pledge["drive"], pledge["id"]
            above = -1
            for _ in range(2):
                head = await self._heads.newest(drive, above=above)
                gift = await self._logs.gift(drive, head.epoch, pledge_id, head.size)
                if gift is None or gift["inclusion_path"] is not None:
                    break
                above = gift["index"]
        if gift is None or gift["inclusion_path"] is None:
            raise NotCountedYet("Try again in a moment.", headers={"retry-after": "1"})
        if not _is_proven(gift, head):
            raise LogInconsistent("The row of this gift is not in the signed tree.")
        shown = {**gift, "tree_size": head.size, "checkpoint": head.note}
        body = json.dumps(shown, ensure_ascii=False, separators=(",", ":")).encode()
        return json_response(body, headers=[_PRIVATE])


def _is_proven(gift: Mapping[str, Any], head: Head) -> bool:
    """Whether the proof is valid: a row that was changed after it was signed must not look proven."""
    path = [b64decode(one) for one in gift["inclusion_path"]]
    return includes(b64decode(gift["leaf_hash"]), gift["index"], head.size, path, head.root)


def _log_of(request: Request) -> tuple[str, int | None]:
    """The drive and the epoch that a path names. Raises `NotFound` for an epoch that is no number."""
    if len(request.params) == 1:
        return request.params[0], None
    epoch = request.params[1]
    if not (epoch.isascii() and epoch.isdecimal() and len(epoch) < 10 and epoch[0] != "0"):
        raise NotFound("No such epoch.")
    return request.params[0], int(epoch)
