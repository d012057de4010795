"""The caller of a request, as authenticated by the gateway: the `Ataa-Caller` header, signed with an HMAC.

Services refuse requests without it. The gateway removes the header from requests of clients.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Annotated, Final, Literal

from fastapi import Depends, Request

from backbone.http.problems import Forbidden, Unauthorized

HEADER: Final = "ataa-caller"

HOSTED_FORM: Final = "hosted-form"
"""The scope of the gateway's own donate page; no API key can have it."""

Mode = Literal["live", "test"]


class NotYourDrive(Forbidden):
    slug, title = "not-your-drive", "This drive belongs to another partner"


@dataclass(frozen=True, slots=True)
class Caller:
    """A partner (or a process of Ataa), its scopes, and the API key it used."""

    partner: str
    scopes: frozenset[str]
    mode: Mode
    key_id: str = ""
    publishable: bool = False

    def require(self, scope: str) -> None:
        """Raises `Forbidden` where the caller lacks `scope`; `admin` includes every scope."""
        if scope not in self.scopes and "admin" not in self.scopes:
            raise Forbidden(f"This needs the scope {scope}.")

    @property
    def hosted_form(self) -> bool:
        """Whether the gateway's donate page sent this; it acts for the partner that owns the drive."""
        return HOSTED_FORM in self.scopes

    @property
    def admin(self) -> bool:
        """Whether the caller administers the installation; it acts for every partner."""
        return "admin" in self.scopes

    def require_owned(self, owner: str | None) -> None:
        """Raises `NotYourDrive` unless the caller is `owner`, a drive's partner, or an admin."""
        if not self.admin:
            require_owned(self.partner, owner)


def require_owned(partner: str | None, owner: str | None) -> None:
    """Raises `NotYourDrive` unless `partner` is the `owner` of a drive (docs/architecture.md).

    Where the owner is unknown (None), every partner is refused.
    """
    if owner is None or partner != owner:
        raise NotYourDrive("Only the partner that created this drive may do this.")


def sign_caller(
    secret: str,
    *,
    partner: str,
    scopes: Sequence[str],
    mode: Mode = "live",
    key_id: str = "",
    publishable: bool = False,
) -> dict[str, str]:
    """The header that authenticates a caller to the services."""
    claims = json.dumps([partner, sorted(scopes), mode, key_id, publishable], separators=(",", ":"))
    body = base64.urlsafe_b64encode(claims.encode()).decode()
    return {HEADER: f"{body}.{_mac(secret, body)}"}


@lru_cache(maxsize=1024)
def verify_caller(secret: str, header: str) -> Caller:
    """The caller in a header. Raises `Unauthorized` where it was not signed with `secret`."""
    body, _, mac = header.partition(".")
    if not secret or not hmac.compare_digest(mac.encode(), _mac(secret, body).encode()):
        raise Unauthorized("Missing or invalid internal signature.")
    partner, scopes, mode, key_id, publishable = json.loads(base64.urlsafe_b64decode(body))
    return Caller(partner, frozenset(scopes), mode, key_id, publishable)


def _mac(secret: str, body: str) -> str:
    return hmac.new(secret.encode(), body.encode(), hashlib.sha256).hexdigest()


async def authenticated_caller(request: Request) -> Caller:
    """FastAPI dependency: the authenticated caller of this request."""
    secret: str = request.app.state.internal_secret
    return verify_caller(secret, request.headers.get(HEADER, ""))


async def internal_caller(caller: Annotated[Caller, Depends(authenticated_caller)]) -> Caller:
    """FastAPI dependency of `/internal` routes: the caller, if it is a process of Ataa."""
    caller.require("internal")
    return caller


CallerDep = Annotated[Caller, Depends(authenticated_caller)]
InternalDep = Annotated[Caller, Depends(internal_caller)]
