"""Creators as callers name them, by id or slug; pledges knows them."""

from __future__ import annotations

from backbone.http.problems import Invalid, Overloaded
from backbone.http.service_client import ServiceClient, ServiceUnavailable, post_internal


class CreatorLookup:
    """Asks pledges for creators."""

    def __init__(self, pledges: ServiceClient, secret: str) -> None:
        self._pledges = pledges
        self._secret = secret

    async def find(self, drive_id: str, creator: str | None) -> str | None:
        """The id of a drive's creator with this id or slug; None for None.

        Raises `Invalid` for an unknown one, and `Overloaded` where pledges is unavailable.
        """
        if creator is None:
            return None
        ref = f"{drive_id}/{creator}"
        try:
            answer = await post_internal(self._pledges, self._secret, "/internal/creators", {"refs": [ref]})
        except ServiceUnavailable:
            raise Overloaded("Creators cannot be looked up now.", retry_after_s=2) from None
        found = answer["data"].get(ref)
        if found is None:
            detail = "no such creator in this drive"
            raise Invalid(detail, errors=[{"pointer": "/creator", "detail": detail}])
        return str(found["id"])
