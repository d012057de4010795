"""The OpenAPI descriptions of the public logs' operations."""

from __future__ import annotations

from typing import Any, Final

from backbone.http.fields import REFERENCE
from backbone.http.problems import NotFound
from gateway.openapi.models import SCHEMAS
from gateway.transparency.heads import LogInconsistent, LogNotSigned
from gateway.transparency.routes import NotCountedYet

Json = dict[str, Any]

_DRIVE: Final[Json] = {
    "name": "drive",
    "in": "path",
    "required": True,
    "schema": {"type": "string", "pattern": f"^{REFERENCE}$"},
    "description": "The drive's id or slug.",
}
_EPOCH: Final[Json] = {
    "name": "epoch",
    "in": "path",
    "required": True,
    "schema": {"type": "integer", "minimum": 1, "maximum": 999999999},
    "description": "The epoch of the log, as the origin of a checkpoint names it.",
}
_TILE: Final[Json] = {
    "name": "tile",
    "in": "path",
    "required": True,
    "schema": {"type": "string", "examples": ["0/000", "0/x001/067.p/12", "entries/000"]},
    "description": "`<L>/<N>[.p/<W>]` or `entries/<N>[.p/<W>]`, as C2SP tlog-tiles defines them.",
}
_TEXT: Final[Json] = {"text/plain": {"schema": {"type": "string"}}}
_BYTES: Final[Json] = {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}}


def _checkpoint(*parameters: Json, name: str) -> Json:
    return {
        "get": {
            "operationId": name,
            "description": (
                "Read the signed head of a drive's log.\n\nA C2SP checkpoint: origin, number of rows, root "
                "in base64, and signatures of the key at `/.well-known/ataa-log-key`. Each "
                "head continues every earlier one of its origin."
            ),
            "parameters": list(parameters),
            "responses": {"200": {"description": "The checkpoint.", "content": _TEXT}},
            "x-problems": [NotFound, LogNotSigned, LogInconsistent],
            "security": [],
        }
    }


def _tiles(*parameters: Json, name: str) -> Json:
    return {
        "get": {
            "operationId": name,
            "description": (
                "Read hashes or entries of a drive's log.\n\nC2SP tlog-tiles. An entry is the canonical JSON "
                "of a row of `events`. Address them with the epoch where they are cached for long."
            ),
            "parameters": [*parameters, _TILE],
            "responses": {"200": {"description": "The tile.", "content": _BYTES}},
            "x-problems": [NotFound, LogNotSigned],
            "security": [],
        }
    }


LOG_OPERATIONS: Final[Json] = {
    "/v1/drives/{drive}/checkpoint": _checkpoint(_DRIVE, name="read_checkpoint"),
    "/v1/drives/{drive}/{epoch}/checkpoint": _checkpoint(_DRIVE, _EPOCH, name="read_checkpoint_of_epoch"),
    "/v1/drives/{drive}/tile/{tile}": _tiles(_DRIVE, name="read_tile"),
    "/v1/drives/{drive}/{epoch}/tile/{tile}": _tiles(_DRIVE, _EPOCH, name="read_tile_of_epoch"),
    "/.well-known/ataa-log-key": {
        "get": {
            "operationId": "read_log_key",
            "description": "Read the key that verifies checkpoints.\n\nA verifier key of C2SP signed-note.",
            "responses": {"200": {"description": "The verifier key.", "content": _TEXT}},
            "x-problems": [LogNotSigned],
            "security": [],
        }
    },
    "/v1/pledges/{id}/proof": {
        "get": {
            "operationId": "read_proof",
            "description": (
                "Prove that a donor's gift is in the public log.\n\nThe row of the pledge's payment, its "
                "leaf hash, and the inclusion path (RFC 9162) in the tree of the checkpoint."
            ),
            "parameters": [
                {
                    "name": "id",
                    "in": "path",
                    "required": True,
                    "schema": {"type": "string"},
                    "description": "The pledge's id.",
                },
                {
                    "name": "token",
                    "in": "query",
                    "required": True,
                    "schema": {"type": "string"},
                    "description": "The pledge's token.",
                },
            ],
            "responses": {
                "200": {
                    "description": "The proof.",
                    "content": {"application/json": {"schema": {"$ref": f"{SCHEMAS}GiftProof"}}},
                }
            },
            "x-problems": [NotFound, LogNotSigned, LogInconsistent, NotCountedYet],
            "security": [],
        }
    },
}
"""The operations by path."""
