"""The partner that owns a drive, where no event has reported it yet."""

from __future__ import annotations

from backbone.http.problems import Overloaded
from backbone.http.service_client import ServiceClient, ServiceUnavailable, post_internal


class DriveOwners:
    """Asks pledges. A drive that was last announced before ownership existed has no stored owner."""

    def __init__(self, pledges: ServiceClient, secret: str) -> None:
        self._pledges = pledges
        self._secret = secret

    async def owner_of(self, drive_id: str) -> str | None:
        """The drive's partner; None where pledges does not know the drive, or runs a version without owners.

        Raises `Overloaded` where pledges is unavailable.
        """
        try:
            answer = await post_internal(
                self._pledges, self._secret, "/internal/drives", {"refs": [drive_id]}
            )
        except ServiceUnavailable:
            detail = f"The owner of drive {drive_id} cannot be determined now."
            raise Overloaded(detail, retry_after_s=2) from None
        partner: str | None = answer["data"].get(drive_id, {}).get("partner")
        return partner
