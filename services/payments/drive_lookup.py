"""Drives as the routes of payments address them: by id or slug, with the partner that owns each."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

from sqlalchemy import bindparam, or_, select, update

from backbone.database.database import Database
from backbone.http.caller import Caller, NotYourDrive
from backbone.http.problems import Forbidden, NotFound, Overloaded
from backbone.http.service_client import ServiceClient, ServiceUnavailable, post_internal
from services.payments.tables import DRIVES


@dataclass(frozen=True, slots=True)
class KnownDrive:
    """A drive; `partner` owns it, and is None where its owner is unknown."""

    id: str
    slug: str
    currency: str
    state: str
    test: bool
    partner: str | None


class DriveLookup:
    """Finds drives in payments' own table, and asks pledges where an event has not arrived yet."""

    def __init__(self, database: Database, pledges: ServiceClient, secret: str) -> None:
        self._database = database
        self._pledges = pledges
        self._secret = secret

    async def find(self, ref: str) -> KnownDrive:
        """The drive with this id or slug. Raises `NotFound`, and `Overloaded` where pledges is unavailable.

        The owner comes from pledges where the stored row has none: versions before ownership sent none. So
        does the state of a draft, which may have been opened since.
        """
        async with self._database.reading() as session:
            row = (await session.execute(_FIND.where(or_(DRIVES.c.id == ref, DRIVES.c.slug == ref)))).first()
        if row is not None and row.partner is not None and row.state != "draft":
            return KnownDrive(**row._asdict())
        found = await self._ask(ref)
        if found is None:
            raise NotFound("No such drive.")
        return KnownDrive(
            found["id"], found["slug"], found["currency"], found["state"], bool(found["test"]),
            found.get("partner"),
        )  # fmt: skip

    async def find_owned(self, ref: str, caller: Caller) -> KnownDrive:
        """The drive, if the caller's partner owns it or the caller is an admin.

        Raises `NotYourDrive`, `Forbidden` for a test key on a live drive, and what `find` raises.
        """
        drive = await self.find(ref)
        caller.require_owned(drive.partner)
        if caller.mode == "test" and not drive.test:
            raise Forbidden("A test key works on test drives only.")
        return drive

    async def require_access(self, drive_id: str, caller: Caller) -> None:
        """Raises unless the caller may read and decide about the money of this drive, known or not.

        Money of an unknown drive is for admins. Raises what `find_owned` raises but `NotFound`.
        """
        if caller.admin:
            return
        try:
            await self.find_owned(drive_id, caller)
        except NotFound:
            raise NotYourDrive("The drive of this money is not known.") from None

    async def owner_of(self, drive_id: str) -> str | None:
        """The drive's partner as pledges states it; None where pledges does not know the drive or its owner.

        Raises `Overloaded` where pledges is unavailable.
        """
        found = await self._ask(drive_id)
        return None if found is None else found.get("partner")

    async def takes_zakat(self, drive_id: str) -> bool:
        """Whether pledges states that the drive takes zakat. Raises `Overloaded` where it is unavailable."""
        found = await self._ask(drive_id)
        return found is not None and found.get("zakat_eligible") is True

    async def store_beneficiaries(self, drive_id: str) -> None:
        """Store a drive's beneficiaries as pledges states them, where no event has reported them.

        Raises `Overloaded` where pledges is unavailable.
        """
        async with self._database.reading() as session:
            row = (await session.execute(_UNKNOWN_BENEFICIARIES, {"drive": drive_id})).first()
        if row is None or (found := await self._ask(drive_id)) is None:
            return
        async with self._database.transaction() as session:
            await session.execute(
                update(DRIVES)
                .where(DRIVES.c.id == drive_id, DRIVES.c.beneficiaries.is_(None))
                .values(beneficiaries=found.get("beneficiaries"))
            )

    async def _ask(self, ref: str) -> dict[str, Any] | None:
        try:
            answer = await post_internal(self._pledges, self._secret, "/internal/drives", {"refs": [ref]})
        except ServiceUnavailable:
            detail = f"Drive {ref} cannot be looked up now."
            raise Overloaded(detail, retry_after_s=2) from None
        found: dict[str, Any] | None = answer["data"].get(ref)
        return found


_UNKNOWN_BENEFICIARIES: Final = select(DRIVES.c.id).where(
    DRIVES.c.id == bindparam("drive"), DRIVES.c.beneficiaries.is_(None)
)
_FIND: Final = select(
    DRIVES.c.id, DRIVES.c.slug, DRIVES.c.currency, DRIVES.c.state, DRIVES.c.test, DRIVES.c.partner
)
