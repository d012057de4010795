"""The tables of payments. Money is in minor units of ISO 4217; times are aware UTC."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Final, cast

from sqlalchemy import JSON, BigInteger, Column, Index, Integer, LargeBinary, UniqueConstraint, false, text
from sqlalchemy import Table as SqlTable
from sqlalchemy.orm import registry
from sqlmodel import Field, SQLModel

from backbone.database.columns import BIGINT_KEY, Utc
from backbone.database.messaging_tables import messaging_tables

WAITING: Final = 0
APPLIED: Final = 1
QUARANTINED: Final = 2
IGNORED: Final = 3
"""States of a stored webhook. QUARANTINED: it could not be applied so far. IGNORED: it is not for us."""


OPEN_FACTS: Final = "(kind = 'refund' AND rank = 1) OR (kind = 'dispute' AND rank = 2)"
"""Pending refunds and open disputes (`domain.RefundRank`, `DisputeRank`): Stripe may still change them."""

EVIDENCE_DUE: Final = "due_at IS NOT NULL"
"""Disputes that wait for our evidence."""


class Table(SQLModel, registry=registry()):
    """A row of payments' database."""


MESSAGING_TABLES: Final = messaging_tables(Table.metadata)


def _where(condition: str) -> dict[str, Any]:
    return {"sqlite_where": text(condition), "postgresql_where": text(condition)}


HELD: Final = "held"
TICKETS: Final = "checkout = 'waiting'"
TO_CLOSE: Final = "(cancelled OR exhausted) AND checkout = 'open'"
HANGING: Final = "checkout = 'open' AND status = 'awaited'"
OWED: Final = "(state = 'unsent' OR (state = 'sent' AND NOT settled))"
RESERVED: Final = "state IN ('unsent', 'unapproved')"
"""Payments in suspense, payments whose checkout is to be opened, those whose checkout is to be expired,
those whose open checkout was neither paid nor has ended, refunds to be sent or answered, and those whose
amounts are reserved while Stripe has not reported them.

Each is the condition of a partial index. Statements repeat it literally: SQLite does not recognise
`cancelled = 1` as `cancelled`, and would scan the table. A condition with a parameter is not recognised by
either store in a statement that is planned before its values are known.
"""

CAPTURED: Final = "paid_currency IS NOT NULL"
RETURNED: Final = "status IN ('partly_refunded', 'refunded', 'disputed')"
WARNED: Final = "warned_at IS NOT NULL"
"""The same for payments of which money was captured, those of which some may have left again, and those that
a card issuer warned of."""

WEBHOOKS_WAITING: Final = "state = 0"
WEBHOOKS_QUARANTINED: Final = "state = 2"
"""The same for webhooks."""


class Drive(Table, table=True):
    """A drive as payments stores it: its currency, the partner that owns it, and its newest state.

    `partner` is None until pledges has announced it; versions before ownership did not.
    """

    __tablename__ = "drives"

    id: str = Field(primary_key=True)
    version: int
    currency: str
    slug: str
    state: str
    test: bool
    partner: str | None = None
    closed_at: datetime | None = Field(default=None, sa_type=Utc)
    """When it was closed; None also where an earlier version consumed that."""
    beneficiaries: Any = Field(default=None, sa_column=Column(JSON(none_as_null=True)))
    """`[{"name", "share_bps"}]`; None until pledges has announced them."""
    currencies: Any = Field(default=None, sa_column=Column(JSON(none_as_null=True)))
    """The currencies that it takes besides its own; None until pledges has announced them."""


class Payment(Table, table=True):
    """One payment: a pledge's ticket in the checkout queue, and the sums of its facts.

    `number` is the ticket. `capture_index` (column `nth`) is 0 for a pledge's first payment; each further
    capture on the same pledge has a row of its own, with 1, 2, ….
    `checkout` is waiting → opening → open, or failed (Stripe refused to open it), or none (nothing to
    open, or expired). `cancelled` is set once its pledge was cancelled, `exhausted` once too many
    cards were declined in its checkout; either expires an open checkout. The amounts are in
    `paid_currency` once money was captured. `offline` is a gift past the processor (offline/gifts.py): it has
    no intent and no facts.

    `suspected` is set where the gift looked like a tested card when it was captured (screening/), `warned_at`
    once a card issuer suspected fraud (recording/warnings.py).

    `held_reason` (domain.HeldReason) and `held_since` are set while it is held. `released_at` is set once a
    person counted it in `drive_id` for `creator_id`; what its pledge names is then in `pledged_drive` and
    `pledged_creator`.

    `zakat` is whether its donor declared it as zakat: its money is posted to accounts of its own. It is set
    with the first state of its pledge, and never changes.

    `rate` is frozen when money in another currency than its drive's (`reporting_currency`) first counts: how
    much one unit of `paid_currency` is worth in it.
    """

    __tablename__ = "payments"
    __table_args__ = (
        UniqueConstraint("pledge_id", "capture_index", name="payments_of_pledge"),
        Index("payments_waiting", "number", **_where(TICKETS)),
        Index("payments_held", "drive_id", "number", **_where(HELD)),
        Index("payments_held_listed", "number", **_where(HELD)),
        Index("payments_captured", "drive_id", "number", **_where(CAPTURED)),
        Index("payments_captured_listed", "number", **_where(CAPTURED)),
        Index("payments_returned", "drive_id", "status", "number", **_where(RETURNED)),
        Index("payments_returned_listed", "status", "number", **_where(RETURNED)),
        Index("payments_to_close", "id", **_where(TO_CLOSE)),
        Index("payments_warned", "drive_id", "number", **_where(WARNED)),
        Index("payments_warned_listed", "number", **_where(WARNED)),
        Index("payments_paid", "drive_id", "id", **_where(CAPTURED)),
        Index("payments_hanging", "expires_at", **_where(HANGING)),
        {"sqlite_autoincrement": True},
    )

    number: int = Field(sa_column=Column(BIGINT_KEY, primary_key=True, autoincrement=True))
    id: str = Field(unique=True)
    pledge_id: str | None
    drive_id: str
    capture_index: int = Field(sa_column=Column("nth", Integer, key="capture_index", nullable=False))
    version: int
    status: str
    held: bool
    held_reason: str | None = None
    held_since: datetime | None = Field(default=None, sa_type=Utc)
    released_at: datetime | None = Field(default=None, sa_type=Utc)
    pledged_drive: str | None = None
    pledged_creator: str | None = None
    rate: str | None = None
    reporting_currency: str | None = None
    pledge_version: int
    amount: int = Field(sa_type=BigInteger)
    currency: str | None
    donor_id: str | None
    anonymous: bool | None
    creator_id: str | None
    platform: str | None
    campaign: str | None
    partner: str | None
    mode: str
    locale: str | None
    intent: str | None = Field(unique=True)
    captured: int = Field(sa_type=BigInteger)
    refunded: int = Field(sa_type=BigInteger)
    disputed: int = Field(sa_type=BigInteger)
    paid_currency: str | None
    captured_at: datetime | None = Field(sa_type=Utc)
    ended: bool
    cancelled: bool = Field(sa_column_kwargs={"server_default": false()})
    offline: bool = Field(default=False, sa_column_kwargs={"server_default": false()})
    suspected: bool = Field(default=False, sa_column_kwargs={"server_default": false()})
    exhausted: bool = Field(default=False, sa_column_kwargs={"server_default": false()})
    warned_at: datetime | None = Field(default=None, sa_type=Utc)
    zakat: bool = Field(default=False, sa_column_kwargs={"server_default": false()})
    checkout: str
    attempts: int
    session_id: str | None
    checkout_url: str | None
    client_secret: str | None
    expires_at: datetime | None = Field(sa_type=Utc)
    queue_rate: int | None = Field(default=None, sa_type=BigInteger)
    """The queue's rate when its ticket was made, in checkouts per 1,000 s (`admission/estimates.py`)."""
    made_at: datetime = Field(sa_type=Utc)
    changed_at: datetime = Field(sa_type=Utc)


class Attempt(Table, table=True):
    """One attempt to open a checkout, stored before the call; `key` is its idempotency key.

    `state` is sent (the outcome is unknown) → opened | failed | quarantined (its outcome could not be
    stored). `parameters` are resent verbatim; `refused` names the parameter that Stripe refused.
    """

    __tablename__ = "attempts"
    __table_args__ = (
        Index("attempts_sent", "key", **_where("state = 'sent'")),
        Index("attempts_done", "done_at", **_where("done_at IS NOT NULL")),
    )

    key: str = Field(primary_key=True)
    payment_id: str
    n: int
    state: str
    parameters: str
    session_id: str | None
    refused: str | None
    reason: str | None
    made_at: datetime = Field(sa_type=Utc)
    done_at: datetime | None = Field(sa_type=Utc)


class Webhook(Table, table=True):
    """A verified Stripe event as received. Personal details are removed once it is applied or ignored.

    `next_try_at` is set once it is quarantined; `reason` says why it was, or why it is ignored. After it is
    applied or ignored, `body` is emptied after one retention and the row deleted after another.
    """

    __tablename__ = "webhooks"
    __table_args__ = (
        Index("webhooks_waiting", "number", **_where(WEBHOOKS_WAITING)),
        Index("webhooks_set_aside", "next_try_at", **_where(WEBHOOKS_QUARANTINED)),
        Index("webhooks_set_aside_received", "received_at", **_where(WEBHOOKS_QUARANTINED)),
        Index("webhooks_set_aside_listed", "number", **_where(WEBHOOKS_QUARANTINED)),
        Index("webhooks_ignored", "number", **_where("state = 3")),
        {"sqlite_autoincrement": True},
    )

    number: int = Field(sa_column=Column(BIGINT_KEY, primary_key=True, autoincrement=True))
    event_id: str = Field(unique=True)
    type: str
    body: bytes = Field(sa_type=LargeBinary)
    state: int = Field(sa_type=Integer)
    tries: int
    reason: str | None
    created_at: datetime = Field(sa_type=Utc)
    received_at: datetime = Field(sa_type=Utc)
    next_try_at: datetime | None = Field(sa_type=Utc)


class Fact(Table, table=True):
    """Something that happened to money at Stripe, by Stripe's id. Facts are never retracted.

    `kind` is capture (`pi_…`), refund (`re_…`), dispute (`dp_…`) or ended (`cs_…`: a session that ended
    unpaid). `rank` only rises, except a dispute's (domain.merge). `posted` is the amount in the ledger for
    it at account `posted_to`, by `postings` rows so far. `doubt` is the reason why that amount is an
    estimate (domain.EstimateReason).
    `told_at`, `withdrawn`, `returned`, `settled_in`, `torn` and `due_at` are set for disputes
    (domain.Observation).
    """

    __tablename__ = "facts"
    __table_args__ = (
        Index("facts_orphaned", "heard_at", **_where("payment_id IS NULL")),
        Index("facts_unplaced", "intent", **_where("payment_id IS NULL AND intent IS NOT NULL")),
        Index("facts_in_doubt", "doubt", **_where("doubt IS NOT NULL")),
        Index("facts_open", "id", **_where(OPEN_FACTS)),
        Index("facts_due", "due_at", **_where(EVIDENCE_DUE)),
    )

    id: str = Field(primary_key=True)
    kind: str
    intent: str | None = Field(index=True)
    units: int = Field(sa_type=BigInteger)
    currency: str
    rank: int
    at: datetime = Field(sa_type=Utc)
    payment_id: str | None
    pledge_id: str | None
    drive_id: str | None
    refund_id: str | None
    told_at: datetime | None = Field(sa_type=Utc)
    withdrawn: int | None = Field(sa_type=BigInteger)
    returned: int | None = Field(sa_type=BigInteger)
    settled_in: str | None
    torn: bool = Field(sa_column_kwargs={"server_default": false()})
    due_at: datetime | None = Field(default=None, sa_type=Utc)
    doubt: str | None
    posted: int = Field(sa_type=BigInteger)
    posted_to: str
    postings: int
    heard_at: datetime = Field(sa_type=Utc)


class Refund(Table, table=True):
    """A refund requested through our API, stored before it is sent; `stripe_id` is set once Stripe has it.

    `state` is unsent → sent | failed; before, one that a second key decides (large_refunds/) is unapproved.
    `n` counts its idempotency keys at Stripe.
    """

    __tablename__ = "refunds"
    __table_args__ = (
        Index("refunds_reserved", "id", **_where(RESERVED)),
        Index("refunds_owed", "next_try_at", **_where(OWED)),
    )

    id: str = Field(primary_key=True)
    payment_id: str = Field(index=True)
    intent: str
    units: int = Field(sa_type=BigInteger)
    currency: str
    parameters: str
    state: str
    n: int
    tries: int
    stripe_id: str | None
    reason: str | None
    scope: str
    key: str
    settled: bool
    next_try_at: datetime = Field(sa_type=Utc)
    made_at: datetime = Field(sa_type=Utc)


class PendingLookup(Table, table=True):
    """A pending lookup of a payment intent at Stripe (table `questions`).

    `kind` is `refunds` (its refunds), `intent` (its capture), `doubts` (its refunds and disputes, while the
    counted amount of one is an estimate), `warned` (its capture, after an early fraud warning) or `session`
    (its capture through a Payment Link, with the reference in the session).
    `expected` is the refunded sum that Stripe reported; where the stored facts add up to it, no lookup is
    needed.
    """

    __tablename__ = "questions"

    intent: str = Field(primary_key=True)
    kind: str = Field(primary_key=True)
    expected: int | None = Field(sa_type=BigInteger)
    tries: int
    ask_at: datetime = Field(sa_type=Utc)


class Posting(Table, table=True):
    """One row of the ledger: `units` > 0 from account `credit` to account `debit`; `cause` is unique.

    `payment_id` and `drive_id` are None where the money belongs to no single one, such as a payout. `rate` is
    the payment's frozen rate, where it has one: what a gift is worth in its drive's currency follows from
    its postings alone (rates/reporting.py).
    """

    __tablename__ = "postings"
    __table_args__ = (
        Index("postings_of_drive", "drive_id", "number"),
        {"sqlite_autoincrement": True},
    )

    number: int = Field(sa_column=Column(BIGINT_KEY, primary_key=True, autoincrement=True))
    debit: str
    credit: str
    units: int = Field(sa_type=BigInteger)
    currency: str
    cause: str = Field(unique=True)
    payment_id: str | None = Field(index=True)
    drive_id: str | None
    posted_at: datetime = Field(sa_type=Utc)
    rate: str | None = None


class Cursor(Table, table=True):
    """A position of background work (table `lanes`); see `cursors.Position`."""

    __tablename__ = "lanes"

    name: str = Field(primary_key=True)
    cursor: int = Field(sa_type=BigInteger)
    resume_after: str | None


class SweepProgress(Table, table=True):
    """The progress of one pass of the sweep over Stripe's lists.

    A pass is under way where `until` is set: it lists the objects created from `since` to `until`, and
    resumes after the object `after`. Everything created up to `swept_to` was compared.
    """

    __tablename__ = "sweeps"

    name: str = Field(primary_key=True)
    since: datetime | None = Field(sa_type=Utc)
    until: datetime | None = Field(sa_type=Utc)
    after: str | None
    swept_to: datetime | None = Field(sa_type=Utc)
    begun_at: datetime = Field(sa_type=Utc)


def table_of(row: type[Table]) -> SqlTable:
    """The SQLAlchemy table of a row class, for multi-row statements."""
    return cast(SqlTable, row.__table__)  # type: ignore[attr-defined]


DRIVES: Final = table_of(Drive)
PAYMENTS: Final = table_of(Payment)
ATTEMPTS: Final = table_of(Attempt)
WEBHOOKS: Final = table_of(Webhook)
FACTS: Final = table_of(Fact)
REFUNDS: Final = table_of(Refund)
LOOKUPS: Final = table_of(PendingLookup)
POSTINGS: Final = table_of(Posting)
CURSORS: Final = table_of(Cursor)
SWEEPS: Final = table_of(SweepProgress)
