"""Who calls, as the gateway vouches for it: the `Ataa-Caller` header under an HMAC.

Services accept nothing without it; the gateway strips what comes from outside.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Annotated, Final, Literal

from fastapi import Depends, Request

from backbone.http.problems import Forbidden, Unauthorized

HEADER: Final = "ataa-caller"

HOSTED_FORM: Final = "hosted-form"
"""The scope of the gateway's own donate page; no key can have it."""

Mode = Literal["live", "test"]


class NotYourDrive(Forbidden):
    slug, title = "not-your-drive", "This drive belongs to another partner"


@dataclass(frozen=True, slots=True)
class Caller:
    """A partner (or one of our own processes), what it may do, and the key it came with."""

    partner: str
    scopes: frozenset[str]
    mode: Mode
    key_id: str = ""
    publishable: bool = False

    def require(self, scope: str) -> None:
        """Raises `Forbidden` where the caller lacks `scope`; `admin` has every scope."""
        if scope not in self.scopes and "admin" not in self.scopes:
            raise Forbidden(f"This needs the scope {scope}.")

    @property
    def hosted_form(self) -> bool:
        """Whether the gateway's own donate page sent this: it acts for the partner that owns the drive."""
        return HOSTED_FORM in self.scopes

    @property
    def admin(self) -> bool:
        """Whether the caller runs the installation: it acts for every partner."""
        return "admin" in self.scopes

    def require_owned(self, owner: str | None) -> None:
        """Raises `NotYourDrive` unless the caller is `owner`, a drive's partner, or an admin."""
        if not self.admin:
            require_owned(self.partner, owner)


def require_owned(partner: str | None, owner: str | None) -> None:
    """Raises `NotYourDrive` unless `partner` is the `owner` of a drive (API.md, Ownership).

    Where the owner is not known (None), nobody is.
    """
    if owner is None or partner != owner:
        raise NotYourDrive("Only the partner that created this drive may do that.")


def sign_caller(
    secret: str,
    *,
    partner: str,
    scopes: Sequence[str],
    mode: Mode = "live",
    key_id: str = "",
    publishable: bool = False,
) -> dict[str, str]:
    """The header that vouches for a caller to the services."""
    claims = json.dumps([partner, sorted(scopes), mode, key_id, publishable], separators=(",", ":"))
    body = base64.urlsafe_b64encode(claims.encode()).decode()
    return {HEADER: f"{body}.{_mac(secret, body)}"}


@lru_cache(maxsize=1024)
def verify_caller(secret: str, header: str) -> Caller:
    """The caller a header vouches for; raises `Unauthorized` where it was not made with `secret`."""
    body, _, mac = header.partition(".")
    if not secret or not hmac.compare_digest(mac.encode(), _mac(secret, body).encode()):
        raise Unauthorized("This door is for the gateway.")
    partner, scopes, mode, key_id, publishable = json.loads(base64.urlsafe_b64decode(body))
    return Caller(partner, frozenset(scopes), mode, key_id, publishable)


def _mac(secret: str, body: str) -> str:
    return hmac.new(secret.encode(), body.encode(), hashlib.sha256).hexdigest()


async def caller(request: Request) -> Caller:
    """FastAPI dependency: the vouched-for caller of this request."""
    secret: str = request.app.state.internal_secret
    return verify_caller(secret, request.headers.get(HEADER, ""))


async def internal(who: Annotated[Caller, Depends(caller)]) -> Caller:
    """FastAPI dependency of `/internal` routes: one of our own processes."""
    who.require("internal")
    return who


CallerDep = Annotated[Caller, Depends(caller)]
InternalDep = Annotated[Caller, Depends(internal)]


def header_of(headers: Mapping[str, str]) -> str:
    """The header's value, for passing a caller on."""
    return headers.get(HEADER, "")
