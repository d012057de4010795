"""`/v1/keys`: give out, list and revoke keys. For admin keys only."""

from __future__ import annotations

import json
import re
from datetime import datetime
from typing import Annotated, Any, Final, Literal
from urllib.parse import urlsplit

from fastapi import APIRouter, Depends, FastAPI, Query, Request, Response
from pydantic import AfterValidator, BaseModel, Field, model_validator
from sqlalchemy import select
from sqlmodel import col

from backbone import idempotency, ids
from backbone.clock import Clock, rfc3339
from backbone.database.database import Database
from backbone.http.caller import Caller, CallerDep
from backbone.http.fields import Body, Text, Timestamp
from backbone.http.problems import NotFound
from backbone.service import new_app
from gateway.access.keys import SCOPES, KeyRing, new_key, new_row
from gateway.tables import Key

_HOST: Final = re.compile(r"[a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?|[0-9a-f:.]{2,45}", re.ASCII)


def _origin(text: str) -> str:
    """An origin as browsers write it: lower case, no default port, no path (RFC 6454, 6.2)."""
    parts = urlsplit(text)
    try:
        port = parts.port
    except ValueError:
        port = -1
    plain = parts.scheme in ("http", "https") and _HOST.fullmatch(parts.hostname or "") and port != -1
    if not plain or parts.path not in ("", "/") or parts.query or parts.fragment or "@" in parts.netloc:
        raise ValueError("must be an origin such as https://example.org or http://localhost:3000")
    host = f"[{parts.hostname}]" if ":" in (parts.hostname or "") else parts.hostname
    default = {"http": 80, "https": 443}[parts.scheme]
    return f"{parts.scheme}://{host}" + (f":{port}" if port not in (None, default) else "")


Origin = Annotated[Text, AfterValidator(_origin), Field(max_length=300)]
Scope = Literal["drives", "pledges", "refunds", "offline", "ledger", "webhooks", "export"]


class KeyRequest(Body):
    """A key to give out. A secret key without `scopes` may make pledges; a publishable one never more."""

    kind: Literal["secret", "publishable"]
    mode: Literal["live", "test"] = "live"
    partner: Annotated[Text, Field(pattern=r"^[a-z0-9][a-z0-9_-]{0,62}$")] = "default"
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


class KeyView(BaseModel):
    """A key without its secret."""

    id: str
    kind: Literal["secret", "publishable"]
    mode: Literal["live", "test"]
    partner: str
    scopes: list[str]
    origins: list[str]
    name: str | None
    last_four: str
    created_at: str
    expires_at: str | None
    revoked_at: str | None


class NewKeyView(KeyView):
    """A key as it is given out. `key` is shown once: in the replay of an Idempotency-Key it is null."""

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
        """Make a key; the same Idempotency-Key answers with the same key's description, never its secret."""
        key, hashed = new_key(key_request.kind, key_request.mode), idempotency.hash_body(body)
        row = new_row(
            key, kind=key_request.kind, mode=key_request.mode, partner=key_request.partner,
            name=key_request.name,
            scopes=sorted(set(key_request.scopes if key_request.scopes is not None else ["pledges"])),
            origins=sorted(set(key_request.origins)), made_at=self._clock.now(),
            expires_at=key_request.expires_at,
        )  # fmt: skip
        without_secret = json.dumps({**_view(row), "key": None}, ensure_ascii=False).encode()
        async with self._database.transaction() as session:
            if idempotency_key is not None:
                idempotency_row = idempotency.Key(f"{caller.partner}:POST /v1/keys", idempotency_key)
                if (stored := await idempotency.claim(session, idempotency_row, hashed)) is not None:
                    return idempotency.keyed_response(*stored.replay(hashed), replayed=True)
                await idempotency.complete(session, idempotency_row, 201, without_secret)
            session.add(row)
        self._ring.add(row)
        with_secret = json.dumps({**_view(row), "key": key}, ensure_ascii=False).encode()
        return idempotency.keyed_response(201, with_secret, replayed=False)

    async def all(self, after: str | None, limit: int) -> dict[str, Any]:
        """A page of keys, revoked ones too."""
        statement = select(Key).order_by(col(Key.id)).limit(limit + 1)
        if after is not None:
            statement = statement.where(col(Key.id) > after)
        async with self._database.reading() as session:
            rows = list((await session.execute(statement)).scalars())
        more = len(rows) > limit
        return {"data": [_view(row) for row in rows[:limit]], "next": rows[limit - 1].id if more else None}

    async def revoke(self, key_id: str) -> None:
        """Refuse a key from now on; again is no mistake. Raises `NotFound`."""
        if not ids.is_id(key_id, "key"):
            raise NotFound
        async with self._database.transaction() as session:
            row = await session.get(Key, key_id)
            if row is None:
                raise NotFound
            row.revoked_at = row.revoked_at or self._clock.now()
        self._ring.revoke(row)


def _view(row: Key) -> dict[str, Any]:
    def moment(value: datetime | None) -> str | None:
        return None if value is None else rfc3339(value)

    return {
        "id": row.id, "kind": row.kind, "mode": row.mode, "partner": row.partner, "scopes": row.scopes,
        "origins": row.origins, "name": row.name, "last_four": row.last_four,
        "created_at": moment(row.made_at), "expires_at": moment(row.expires_at),
        "revoked_at": moment(row.revoked_at),
    }  # fmt: skip


async def _keys(request: Request) -> Keys:
    found: Keys = request.app.state.keys
    return found


KeysDep = Annotated[Keys, Depends(_keys)]
router = APIRouter(prefix="/v1/keys", tags=["keys"])


@router.post("", status_code=201, response_model=NewKeyView)
async def give_out_key(
    request: Request,
    key_request: KeyRequest,
    keys: KeysDep,
    caller: CallerDep,
    idempotency_key: idempotency.OptionalKey,
) -> Response:
    """Give out a key. It is shown this once; only its SHA-256 is kept."""
    caller.require("admin")
    return await keys.issue(caller, key_request, await request.body(), idempotency_key)


@router.get("", response_model=KeyList)
async def list_keys(
    keys: KeysDep,
    caller: CallerDep,
    after: Annotated[Text | None, Query(max_length=64)] = None,
    limit: Annotated[int, Query(ge=1, le=100)] = 25,
) -> dict[str, Any]:
    """The keys that were given out, without their secrets."""
    caller.require("admin")
    return await keys.all(after, limit)


@router.delete("/{key}", status_code=204)
async def revoke_key(key: str, keys: KeysDep, caller: CallerDep) -> None:
    """Revoke a key: refused here at once, everywhere within two seconds."""
    caller.require("admin")
    await keys.revoke(key)


def keys_app(keys: Keys, secret: str) -> FastAPI:
    """The application behind `/v1/keys`, called like any other service."""
    app = new_app("keys", secret)
    app.state.keys = keys
    app.include_router(router)
    return app
