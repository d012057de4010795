"""The postings of fees and payouts, as tests compare them."""

from __future__ import annotations

from sqlalchemy import or_, select

from services.payments.recording.ledger import BANK, CLEARING, FEES
from services.payments.tables import POSTINGS
from tests.payments.books import Books

Row = tuple[str, str, str, int, str, str | None]


async def settled(books: Books) -> set[Row]:
    """Cause, debit, credit, units, currency and payment of every posting of a fee or payout."""
    names = ("cause", "debit", "credit", "units", "currency", "payment_id")
    statement = select(*(POSTINGS.c[name] for name in names)).where(
        or_(*(POSTINGS.c[side].in_((FEES, BANK)) for side in ("debit", "credit")))
    )
    async with books.database.reading() as session:
        rows = [tuple(row) for row in await session.execute(statement)]
    assert len(set(rows)) == len(rows)
    return set(rows)  # type: ignore[arg-type]


def fee_row(cause: str, units: int, payment: str | None, currency: str = "USD") -> Row:
    """A fee's posting; a negative fee is one that was returned."""
    sides = (FEES, CLEARING) if units > 0 else (CLEARING, FEES)
    return (f"{cause}#fee", *sides, abs(units), currency, payment)


def payout_row(cause: str, units: int) -> Row:
    """A payout's posting; negative where the bank returned it."""
    sides = (BANK, CLEARING) if units > 0 else (CLEARING, BANK)
    return (f"{cause}#payout", *sides, abs(units), "USD", None)
