"""Tables of the Merkle trees. All can be deleted at any time: they are computed from `drive_log` again."""

from __future__ import annotations

from typing import Final

from sqlalchemy import BigInteger, Column, LargeBinary
from sqlmodel import Field

from services.leaderboard.tables import Table


class LogTree(Table, table=True):
    """A log's tree; `tiled`, a multiple of 256, is the number of its rows whose hashes are in tiles."""

    __tablename__ = "log_trees"

    drive_id: str = Field(primary_key=True)
    epoch: int = Field(primary_key=True)
    tiled: int = Field(sa_column=Column(BigInteger, nullable=False))


class LogTile(Table, table=True):
    """Up to 256 hashes of a level: of leaves in level 0, of full tiles of the level below otherwise.

    Tiles of level 0 are full. Those of other levels grow at their end only.
    """

    __tablename__ = "log_tiles"
    __table_args__ = ({"sqlite_with_rowid": True},)  # rows of 8 KiB are slow in a table without row ids

    drive_id: str = Field(primary_key=True)
    epoch: int = Field(primary_key=True)
    level: int = Field(primary_key=True)
    number: int = Field(sa_column=Column(BigInteger, primary_key=True, autoincrement=False))
    hashes: bytes = Field(sa_column=Column(LargeBinary, nullable=False))


class LoggedGift(Table, table=True):
    """Where in a log the first `donation.counted` of a pledge is, as far as the log is tiled."""

    __tablename__ = "logged_gifts"

    pledge_id: str = Field(primary_key=True)
    drive_id: str = Field(primary_key=True)
    epoch: int = Field(primary_key=True)
    sequence: int = Field(sa_column=Column(BigInteger, nullable=False))


log_trees: Final = Table.metadata.tables["log_trees"]
log_tiles: Final = Table.metadata.tables["log_tiles"]
logged_gifts: Final = Table.metadata.tables["logged_gifts"]
