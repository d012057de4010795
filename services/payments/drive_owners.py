"""Which partner owns a drive, where no event has said so yet."""

from __future__ import annotations

from backbone.http.problems import Overloaded
from backbone.http.service_client import ServiceClient, ServiceUnavailable, post_internal


class DriveOwners:
    """Asks pledges. Drives announced before ownership are stored without an owner until they change."""

    def __init__(self, pledges: ServiceClient, secret: str) -> None:
        self._pledges = pledges
        self._secret = secret

    async def post_internal(self, drive_id: str) -> str | None:
        """The drive's partner; None for a drive pledges does not know, or a pledges that does not say.

        Raises `Overloaded` where pledges does not answer.
        """
        try:
            answer = await post_internal(
                self._pledges, self._secret, "/internal/drives", {"refs": [drive_id]}
            )
        except ServiceUnavailable:
            raise Overloaded("Whose drive this is cannot be asked at the moment.", retry_after_s=2) from None
        partner: str | None = answer["data"].get(drive_id, {}).get("partner")
        return partner
