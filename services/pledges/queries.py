"""Queries: drives, creators and pledges for the public API; pledges and donor texts for other services."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, Final

from sqlalchemy import Select, func, or_, select

from backbone.clock import Clock
from backbone.contracts.pledges import PledgeStatus
from backbone.database.database import Database
from backbone.database.one_of import one_of
from backbone.database.plans import Parameters
from backbone.http.caller import Caller
from backbone.http.problems import NotFound
from backbone.money import as_json, decimal_string
from services.pledges import funnel
from services.pledges.domain import PledgeSecrets, localized
from services.pledges.moderation.states import Texts, shown
from services.pledges.rates import current_rates
from services.pledges.tables import CREATORS, DONOR_TEXTS, DRIVES, PAYMENTS, PLEDGES, RARE_STATUS
from services.pledges.views import creator_json, drive_json, pledge_json

MAX_SEARCH_RESULTS: Final = 20
"""The most creators that one search returns."""

_CREATOR_SUMMARIES: Final = select(CREATORS.c.id, CREATORS.c.drive_id, CREATORS.c.slug, CREATORS.c.name)


class Queries:
    """Reads drives, creators, pledges and donor texts; never waits for a writer."""

    def __init__(self, database: Database, secrets: PledgeSecrets, clock: Clock) -> None:
        self._clock = clock
        self._database = database
        self._secrets = secrets

    async def drive(self, ref: str) -> dict[str, Any]:
        """The drive with the slug or id `ref`. Raises NotFound."""
        found = await self.drives([ref])
        if ref not in found:
            raise NotFound("No such drive.")
        return found[ref]

    async def drives(self, refs: Sequence[str]) -> dict[str, dict[str, Any]]:
        """Drives by slug or id, keyed as in `refs`; unknown ones are left out."""
        columns = DRIVES.c
        rows = await self._fetch_all(select(DRIVES).where(or_(columns.slug.in_(refs), columns.id.in_(refs))))
        by_ref = {name: drive_json(row) for row in rows for name in (row.slug, row.id)}
        return {ref: by_ref[ref] for ref in refs if ref in by_ref}

    async def rates(self, pairs: Sequence[str]) -> dict[str, str]:
        """The rates at which intake accepts pledges now, by pair, such as KWD/USD; others are left out."""
        wanted = {(source, target): pair for pair in pairs for source, _, target in [pair.partition("/")]}
        async with self._database.reading() as session:
            found = await current_rates(session, wanted, self._clock.now())
        return {wanted[pair]: rate for pair, rate in found.items()}

    async def list_drives(self, caller: Caller, after: str | None, limit: int) -> dict[str, Any]:
        """A page of the drives that the caller's partner owns, newest first; of all partners for an admin.

        A test key sees test drives only.
        """
        columns = DRIVES.c
        page = select(DRIVES).order_by(columns.id.desc())
        if not caller.admin:
            page = page.where(columns.partner == caller.partner)
        if caller.mode == "test":
            page = page.where(columns.test)
        if after is not None:
            page = page.where(columns.id < after)
        rows = await self._fetch_all(page.limit(limit + 1))
        shown = rows[:limit]
        return {
            "data": [drive_json(row) for row in shown],
            "next": shown[-1].id if len(rows) > limit else None,
        }

    async def creators(self, ref: str, after: str | None, limit: int) -> dict[str, Any]:
        """A page of a drive's creators, oldest first. Raises NotFound."""
        drive = await self.drive(ref)
        columns = CREATORS.c
        page = select(CREATORS).where(columns.drive_id == drive["id"]).order_by(columns.id).limit(limit + 1)
        rows = await self._fetch_all(page if after is None else page.where(columns.id > after))
        shown = rows[:limit]
        return {
            "data": [creator_json(row, drive["currency"]) for row in shown],
            "next": shown[-1].id if len(rows) > limit else None,
        }

    async def creators_by_ref(self, refs: Sequence[str]) -> dict[str, Any]:
        """Creators by `<drive id>/<slug or id>`, keyed as in `refs`; unknown ones are left out."""
        statement = [ref.partition("/") for ref in refs]
        columns = CREATORS.c
        names = {name for _, _, name in statement}
        rows = await self._fetch_all(
            _CREATOR_SUMMARIES.where(columns.drive_id.in_({drive for drive, _, _ in statement})).where(
                or_(columns.slug.in_(names), columns.id.in_(names))
            )
        )
        found = {
            f"{row.drive_id}/{name}": _creator_summary(row) for row in rows for name in (row.slug, row.id)
        }
        return {ref: found[ref] for ref in refs if ref in found}

    async def search_creators(self, drive_id: str, text: str) -> dict[str, Any]:
        """The first `MAX_SEARCH_RESULTS` creators of a drive whose name or slug holds `text`, in any case of
        letters.

        `more` is true where there are others. (Outside ASCII, SQLite distinguishes upper and lower case.)
        """
        columns = CREATORS.c
        rows = await self._fetch_all(
            _CREATOR_SUMMARIES.where(columns.drive_id == drive_id)
            .where(
                or_(
                    columns.name.icontains(text, autoescape=True),
                    columns.slug.icontains(text, autoescape=True),
                )
            )
            .order_by(columns.id)
            .limit(MAX_SEARCH_RESULTS + 1)
        )
        return {
            "creators": [_creator_summary(row) for row in rows[:MAX_SEARCH_RESULTS]],
            "more": len(rows) > MAX_SEARCH_RESULTS,
        }

    async def pledged_by_source(self, drive_id: str, since: datetime, until: datetime) -> Mapping[str, Any]:
        """See `funnel.pledged_by_source`."""
        return await funnel.pledged_by_source(self._database, drive_id, since, until)

    async def list_pledges(
        self, caller: Caller, filters: Mapping[str, str], after: str | None, limit: int
    ) -> dict[str, Any]:
        """A page of the caller's own pledges, newest first; `filters` may name drive, reference, status.

        A test key sees the pledges of test drives only. Raises NotFound for an unknown drive.
        """
        columns = PLEDGES.c
        page = select(PLEDGES).where(columns.partner == caller.partner).order_by(columns.id.desc())
        if "drive" in filters:
            page = page.where(columns.drive_id == (await self.drive(filters["drive"]))["id"])
        for name in ("reference", "status"):
            if name in filters:
                page = page.where(columns[name] == filters[name])
        if filters.get("status") not in (None, PledgeStatus.OPEN, PledgeStatus.PAID):
            page = page.where(RARE_STATUS)  # lets the partial index `pledges_by_status` be used
        if caller.mode == "test":
            page = page.where(columns.test)
        if after is not None:
            page = page.where(columns.id < after)
        rows = await self._fetch_all(page.limit(limit + 1))
        shown = rows[:limit]
        return {
            "data": [
                pledge_json(row, self._secrets.token(row.id)) | {"checkout": None, "queue": None}
                for row in shown
            ],
            "next": shown[-1].id if len(rows) > limit else None,
        }

    async def pledges(self, ids: Sequence[str]) -> dict[str, Any]:
        """Public views of pledges, with their partner and whether the drive is a test drive."""
        rows = await self._fetch_all(_PLEDGES, {"ids": ids})
        return {
            row.id: {
                "pledge": pledge_json(row, self._secrets.token(row.id)),
                "partner": row.partner,
                "test": row.test,
            }
            for row in rows
        }

    async def checkout_details(self, ids: Sequence[str]) -> dict[str, Any]:
        """What a checkout session needs: personal data, which events do not carry."""
        return {
            row.id: {
                "return_url": row.return_url,
                "name": row.name,
                "email": row.email,
                "locale": row.locale,
                "title": localized(row.title, row.locale),
                "slug": row.slug,
                "drive_state": row.state,
                "test": row.test,
            }
            for row in await self._fetch_all(_WITH_DRIVE_AND_DONOR_TEXTS, {"ids": ids})
        }

    async def receipt_details(self, ids: Sequence[str]) -> dict[str, Any]:
        """What a receipt needs for each pledge.

        A name that may not be shown, or is held or hidden, is left out here too: its author may have put a
        link into it and another person's e-mail address beside it.
        """
        return {
            row.id: {
                "email": row.email,
                "name": _name_in_receipts(row),
                "locale": row.locale,
                "title": localized(row.title, row.locale),
                "amount": as_json(row.amount, row.currency),
            }
            for row in await self._fetch_all(_WITH_DRIVE_AND_DONOR_TEXTS, {"ids": ids})
        }

    async def donor_texts(self, ids: Sequence[str]) -> dict[str, Any]:
        """The name and message that may be shown with each pledge; a name of None is anonymous.

        `version` counts the decisions of moderators that this follows.
        """
        return {row.id: _shown_texts(row) for row in await self._fetch_all(_DONOR_TEXTS, {"ids": ids})}

    async def books(self) -> dict[str, str]:
        """Net processor money by currency (captured − refunded − disputed), from payments' events."""
        columns = PAYMENTS.c
        net = func.sum(columns.captured - columns.refunded - columns.disputed).label("net")
        by_processor = select(columns.currency, net).where(columns.offline.is_(False))
        rows = await self._fetch_all(by_processor.group_by(columns.currency))
        return {row.currency: decimal_string(int(row.net), row.currency) for row in rows}

    async def outbox_rows(self) -> int:
        """The number of outbox rows not yet published."""
        rows = await self._fetch_all(
            select(func.count().label("rows")).select_from(self._database.messaging_tables.outbox)
        )
        return int(rows[0].rows)

    async def _fetch_all(self, statement: Select[Any], values: Parameters | None = None) -> Sequence[Any]:
        async with self._database.reading() as session:
            rows: Sequence[Any] = (await session.execute(statement, values)).all()
            return rows


def _creator_summary(creator: Any) -> dict[str, str]:
    return {"id": creator.id, "slug": creator.slug, "name": creator.name}


def _name_in_receipts(row: Any) -> str | None:
    """The donor's name, of an anonymous donor too: only the donor reads it."""
    return shown(Texts(row.name, None), row.text_state, row.held or (), row.decided or 0).name


def _shown_texts(row: Any) -> dict[str, Any]:
    texts = Texts(None if row.anonymous else row.name, row.message)
    version = row.decided or 0
    return shown(texts, row.state, row.held or (), version)._asdict() | {"version": version}


_PLEDGES: Final = select(PLEDGES).where(one_of(PLEDGES.c.id, "ids"))
_DONOR_TEXTS: Final = (
    select(
        PLEDGES.c.id, DONOR_TEXTS.c.name, DONOR_TEXTS.c.message, DONOR_TEXTS.c.anonymous,
        DONOR_TEXTS.c.state, DONOR_TEXTS.c.held, DONOR_TEXTS.c.decided,
    )
    .outerjoin(DONOR_TEXTS, DONOR_TEXTS.c.pledge_id == PLEDGES.c.id)
    .where(one_of(PLEDGES.c.id, "ids"))
)  # fmt: skip
_WITH_DRIVE_AND_DONOR_TEXTS: Final = (
    select(
        PLEDGES.c.id, PLEDGES.c.amount, PLEDGES.c.currency, PLEDGES.c.return_url, PLEDGES.c.locale,
        DRIVES.c.title, DRIVES.c.slug, DRIVES.c.state, DRIVES.c.test, DONOR_TEXTS.c.name, DONOR_TEXTS.c.email,
        DONOR_TEXTS.c.state.label("text_state"), DONOR_TEXTS.c.held, DONOR_TEXTS.c.decided,
    )
    .join(DRIVES, DRIVES.c.id == PLEDGES.c.drive_id)
    .outerjoin(DONOR_TEXTS, DONOR_TEXTS.c.pledge_id == PLEDGES.c.id)
    .where(one_of(PLEDGES.c.id, "ids"))
)  # fmt: skip
