"""`/v1/keys`: create, list and revoke API keys, with an admin key."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from datetime import datetime
from typing import Annotated, Any, Final, Literal
from urllib.parse import urlsplit

from fastapi import APIRouter, FastAPI, Query, Request, Response
from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    StringConstraints,
    WithJsonSchema,
    model_validator,
)
from pydantic.json_schema import SkipJsonSchema
from sqlalchemy import insert, select, update

from backbone import ids
from backbone.addresses import ORIGIN
from backbone.clock import Clock, rfc3339
from backbone.database.database import Database
from backbone.database.transaction import Transaction
from backbone.http.caller import Caller, CallerDep
from backbone.http.fields import Body, Text, Timestamp, TimestampView, id_schema, text_schema, with_examples
from backbone.http.problems import Invalid, NotFound, documented
from backbone.idempotency import OptionalKey, ScopedKey, hash_body, keyed_response, run_once
from backbone.service import add_routes, new_app
from gateway.access.keys import SCOPES, KeyRing, new_key, new_row
from gateway.tables import KEYS, Key

_PARTNER: Final = "^[a-z0-9][a-z0-9_-]{0,62}$"


def _origin(text: str) -> str:
    """An origin as browsers send it: lower case, no default port, no path (RFC 6454, 6.2)."""
    if re.fullmatch(ORIGIN, text) is None:
        raise ValueError("must be an origin such as https://example.org or http://localhost:3000")
    parts = urlsplit(text)
    host = f"[{parts.hostname}]" if ":" in (parts.hostname or "") else parts.hostname
    default = {"http": 80, "https": 443}[parts.scheme]
    return f"{parts.scheme}://{host}" + (f":{parts.port}" if parts.port not in (None, default) else "")


Origin = Annotated[
    Text,
    AfterValidator(_origin),
    StringConstraints(max_length=300),
    text_schema(ORIGIN, maxLength=300, examples=["https://example.org"]),
]
Scope = Literal["drives", "pledges", "refunds", "offline", "ledger", "moderation", "webhooks", "export"]


class KeyRequest(Body):
    """A key to create. The default of `scopes` is `pledges`, which is all that a publishable key may have."""

    model_config = ConfigDict(
        json_schema_extra={
            "anyOf": [
                {"properties": {"kind": {"const": "secret"}, "origins": {"maxItems": 0}}},
                {
                    "properties": {
                        "kind": {"const": "publishable"},
                        "scopes": {"anyOf": [{"items": {"const": "pledges"}}, {"type": "null"}]},
                        "origins": {"minItems": 1},
                    },
                    "required": ["origins"],
                },
            ],
            "examples": [
                {"kind": "secret", "partner": "aboflah", "scopes": ["drives", "pledges", "refunds"]},
                {"kind": "publishable", "partner": "aboflah", "origins": ["https://example.org"]},
            ],
        }
    )

    kind: Literal["secret", "publishable"]
    mode: Literal["live", "test"] = "live"
    partner: Annotated[
        Text,
        StringConstraints(pattern=_PARTNER),
        WithJsonSchema({"type": "string", "pattern": _PARTNER}),
    ] = "default"
    scopes: Annotated[list[Scope], Field(max_length=len(SCOPES))] | None = None
    origins: Annotated[list[Origin], Field(max_length=50)] = Field(default_factory=list)
    name: Annotated[Text, Field(max_length=200)] | None = None
    expires_at: Timestamp | None = None

    @model_validator(mode="after")
    def _fits(self) -> KeyRequest:
        if self.kind == "publishable":
            if set(self.scopes or ("pledges",)) != {"pledges"}:
                raise ValueError("a publishable key has the scope pledges and no other")
            if not self.origins:
                raise ValueError("a publishable key needs the origins it may be used from")
        elif self.origins:
            raise ValueError("only a publishable key has origins")
        return self


_KEY: Final[dict[str, Any]] = {
    "id": "key_01frtz5n00000000000000000f",
    "kind": "secret",
    "mode": "live",
    "partner": "aboflah",
    "scopes": ["drives", "pledges", "refunds"],
    "origins": [],
    "name": "server",
    "last_four": "IJ01",
    "created_at": "2030-01-07T18:00:00.000Z",
    "expires_at": None,
    "revoked_at": None,
}


class KeyView(BaseModel):
    """A key without its secret."""

    model_config = with_examples(_KEY)

    id: Annotated[str, id_schema("key")]
    kind: Literal["secret", "publishable"]
    mode: Literal["live", "test"]
    partner: str
    scopes: list[str]
    origins: list[str]
    name: str | None
    last_four: str
    created_at: TimestampView
    expires_at: TimestampView | None
    revoked_at: TimestampView | None


class NewKeyView(KeyView):
    """A created key. `key` is shown once: in the replay of an Idempotency-Key it is null."""

    model_config = with_examples(_KEY | {"key": "sk_live_0123456789abcdefghijABCDEFGHIJ01"})

    key: str | None


class KeyList(BaseModel):
    """Keys, the oldest first; `next` goes into `after`."""

    data: list[KeyView]
    next: str | None


class Keys:
    """The commands and queries behind `/v1/keys`."""

    def __init__(self, database: Database, ring: KeyRing, clock: Clock) -> None:
        self._database = database
        self._ring = ring
        self._clock = clock

    async def issue(
        self, caller: Caller, key_request: KeyRequest, body: bytes, idempotency_key: str | None
    ) -> Response:
        """Create a key. A repeated Idempotency-Key returns the same key without its secret."""
        key = new_key(key_request.kind, key_request.mode)
        row = new_row(
            key, kind=key_request.kind, mode=key_request.mode, partner=key_request.partner,
            name=key_request.name,
            scopes=sorted(set(key_request.scopes if key_request.scopes is not None else ["pledges"])),
            origins=sorted(set(key_request.origins)), made_at=self._clock.now(),
            expires_at=key_request.expires_at,
        )  # fmt: skip
        without_secret = json.dumps({**_view(row), "key": None}, ensure_ascii=False).encode()
        scope = f"{caller.partner}:POST /v1/keys"
        scoped = None if idempotency_key is None else ScopedKey(scope, idempotency_key)

        async def create(session: Transaction) -> bytes:
            await session.execute(insert(KEYS), row.model_dump())
            return without_secret

        reply = await run_once(self._database, scoped, hash_body(body), create)
        if not reply.replayed:
            self._ring.add(row)
            with_secret = json.dumps({**_view(row), "key": key}, ensure_ascii=False).encode()
            reply = reply._replace(body=with_secret)
        return keyed_response(reply)

    async def all(self, after: str | None, limit: int) -> dict[str, Any]:
        """A page of keys, revoked ones too."""
        statement = select(KEYS).order_by(KEYS.c.id).limit(limit + 1)
        if after is not None:
            statement = statement.where(KEYS.c.id > after)
        async with self._database.reading() as session:
            rows = [Key(**row._asdict()) for row in await session.execute(statement)]
        more = len(rows) > limit
        return {"data": [_view(row) for row in rows[:limit]], "next": rows[limit - 1].id if more else None}

    async def revoke(self, key_id: str) -> None:
        """Revoke a key; revoking it again changes nothing. Raises `NotFound`."""
        if not ids.is_id(key_id, "key"):
            raise NotFound
        async with self._database.transaction() as session:
            stored = (
                await session.execute(select(KEYS).where(KEYS.c.id == key_id).with_for_update())
            ).first()
            if stored is None:
                raise NotFound
            key = Key(**stored._asdict())
            key.revoked_at = key.revoked_at or self._clock.now()
            revoked = update(KEYS).where(KEYS.c.id == key_id).values(revoked_at=key.revoked_at)
            await session.execute(revoked)
        self._ring.revoke(key)


def _view(row: Key) -> dict[str, Any]:
    def moment(value: datetime | None) -> str | None:
        return None if value is None else rfc3339(value)

    return {
        "id": row.id, "kind": row.kind, "mode": row.mode, "partner": row.partner, "scopes": row.scopes,
        "origins": row.origins, "name": row.name, "last_four": row.last_four,
        "created_at": moment(row.made_at), "expires_at": moment(row.expires_at),
        "revoked_at": moment(row.revoked_at),
    }  # fmt: skip


@dataclass(frozen=True, slots=True)
class Dependencies:
    """The objects that the routes use."""

    keys: Keys


def routes(dependencies: Dependencies) -> APIRouter:
    """All routes of `/v1/keys`."""
    router = APIRouter(prefix="/v1/keys")

    @router.post("", status_code=201, response_model=NewKeyView, responses=documented(Invalid))
    async def give_out_key(
        request: Request,
        key_request: KeyRequest,
        caller: CallerDep,
        idempotency_key: OptionalKey,
    ) -> Response:
        """Create a key.

        The key is shown this once; only its SHA-256 is stored.
        """
        caller.require("admin")
        return await dependencies.keys.issue(caller, key_request, await request.body(), idempotency_key)

    @router.get("", response_model=KeyList)
    async def list_keys(
        caller: CallerDep,
        after: Annotated[
            Annotated[Text, StringConstraints(max_length=64)] | SkipJsonSchema[None],
            Query(description="`next` of the page before."),
        ] = None,
        limit: Annotated[int, Query(ge=1, le=100, description="How many at most.")] = 25,
    ) -> dict[str, Any]:
        """List the keys that were created, without their secrets."""
        caller.require("admin")
        return await dependencies.keys.all(after, limit)

    @router.delete("/{key}", status_code=204, responses=documented(NotFound))
    async def revoke_key(key: Annotated[str, id_schema("key")], caller: CallerDep) -> None:
        """Revoke a key.

        It is refused everywhere within two seconds. Revoking it again changes nothing.
        """
        caller.require("admin")
        await dependencies.keys.revoke(key)

    return router


def keys_app(keys: Keys, secret: str) -> FastAPI:
    """The application behind `/v1/keys`, called like any other service."""
    app = new_app("keys", secret)
    add_routes(app, routes(Dependencies(keys)))
    return app
