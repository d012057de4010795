"""The tables of screening. All rows but those of open breakers are deleted after a day."""

from __future__ import annotations

from datetime import datetime
from typing import Final

from sqlalchemy import Column, Index
from sqlmodel import Field

from backbone.database.columns import BIGINT_KEY, Utc
from services.payments.tables import Table, table_of


class PaymentClient(Table, table=True):
    """The client that made the pledge of a payment, as the gateway names it: a keyed hash of its address.

    The gateway forgets the key after two days; from then on nobody can find the address that belongs to it.
    """

    __tablename__ = "payment_clients"
    __table_args__ = (Index("payment_clients_by_age", "made_at"), {"sqlite_with_rowid": False})

    payment_id: str = Field(primary_key=True)
    client: str
    made_at: datetime = Field(sa_type=Utc)


class CardTry(Table, table=True):
    """A card that was tried: declined or charged. `card` is Stripe's fingerprint of a declined one.

    `event_id` is that of Stripe's event, so a repeated event counts once. `at` is the event's time.
    """

    __tablename__ = "card_tries"
    __table_args__ = (
        Index("card_tries_of_client", "client", "at"),
        Index("card_tries_by_age", "at"),
        {"sqlite_autoincrement": True},
    )

    number: int = Field(sa_column=Column(BIGINT_KEY, primary_key=True, autoincrement=True))
    event_id: str = Field(unique=True)
    payment_id: str
    drive_id: str
    client: str | None
    card: str | None
    declined: bool
    small: bool
    at: datetime = Field(sa_type=Utc)


class OpenBreaker(Table, table=True):
    """A breaker that is open: of a drive, or of all (`scope` is `all`)."""

    __tablename__ = "open_breakers"
    __table_args__ = ({"sqlite_with_rowid": False},)

    scope: str = Field(primary_key=True)
    opened_at: datetime = Field(sa_type=Utc)


class RefusedClient(Table, table=True):
    """A client that is refused until `until`. Rows are only added, so readers ask for those after a
    number."""

    __tablename__ = "refused_clients"
    __table_args__ = (Index("refused_clients_by_end", "until"), {"sqlite_autoincrement": True})

    number: int = Field(sa_column=Column(BIGINT_KEY, primary_key=True, autoincrement=True))
    client: str
    reason: str
    until: datetime = Field(sa_type=Utc)


CLIENTS: Final = table_of(PaymentClient)
TRIES: Final = table_of(CardTry)
BREAKERS: Final = table_of(OpenBreaker)
REFUSED: Final = table_of(RefusedClient)
