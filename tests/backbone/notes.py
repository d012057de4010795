"""A minimal service for the backbone's tests: it stores each event it consumes as a note."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

from sqlalchemy import insert, select
from sqlalchemy.orm import registry
from sqlmodel import Field, SQLModel

from backbone.contracts.event import Event
from backbone.database.database import Database
from backbone.database.messaging_tables import messaging_tables
from backbone.database.transaction import Transaction


class Noted(Event, name="tests.noted.v1", topic="notes", key="about"):
    """An event to be stored as a note."""

    about: str
    text: str


class Table(SQLModel, registry=registry()):
    """A registry of the tests' own."""


class Note(Table, table=True):
    """One row per note, so that a repeated event is visible."""

    __tablename__ = "notes"

    id: int | None = Field(default=None, primary_key=True)
    about: str
    text: str


MESSAGING_TABLES = messaging_tables(Table.metadata)


@asynccontextmanager
async def open_database(url: str) -> AsyncIterator[Database]:
    """A new database with the tables of the notes service."""
    database = Database(url, MESSAGING_TABLES)
    async with database.transaction() as session:
        await session.run_sync(lambda plain: Table.metadata.drop_all(plain.connection))
        await session.run_sync(lambda plain: Table.metadata.create_all(plain.connection))
    try:
        yield database
    finally:
        await database.close()


def sqlite_url(folder: Path) -> str:
    """The URL of a SQLite file in `folder`."""
    return f"sqlite:///{folder / 'notes.db'}"


async def take_notes(events: Sequence[Noted], session: Transaction) -> None:
    """Store each event; raises for the text `poison`."""
    if any(event.text == "poison" for event in events):
        raise ValueError("this one cannot be noted")
    await session.execute(insert(Note), [{"about": event.about, "text": event.text} for event in events])


async def noted(database: Database) -> list[tuple[str, str]]:
    """All notes, in order of insertion."""
    async with database.reading() as session:
        rows = await session.execute(select(Note.about, Note.text).order_by(Note.id))  # type: ignore[call-overload]
        return [(about, text) for about, text in rows]


OpenDatabase = Callable[[], "AsyncIterator[Database]"]
