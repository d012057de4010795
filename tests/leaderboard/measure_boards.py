"""Measure the boards at many donors: `python -m tests.leaderboard.measure_boards`.

Prints the cost of a payment's event and of adding it to the sums, then p50 and p99 of each read, and what the
donors' windows would cost if each read summed the payments of its window. `--events-only` measures the events
alone, to compare two versions.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import statistics
import tempfile
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final, get_args

from sqlalchemy import text

from backbone.contracts import PaymentChanged
from backbone.contracts.pledges import Source
from backbone.database.columns import microseconds
from backbone.database.database import Database
from backbone.database.transaction import SyncTransaction
from services.leaderboard import boards, standings
from services.leaderboard.boards import Board, Window
from services.leaderboard.handlers import HANDLERS
from tests.leaderboard.builders import DRIVE, creator, drive, handle_events, open_database, payment

NOW: Final = datetime.now(UTC)
MENU: Final = (500, 1000, 2000, 2500, 2500, 5000, 10000)
PLATFORMS: Final = ("youtube", "twitch", "x", "tiktok")
SCAN: Final = text(
    """
    SELECT donor_key, SUM(captured - refunded - disputed) AS raised, COUNT(*) AS gifts, MAX(captured_at) AS at
    FROM payments
    WHERE drive_id = :drive AND counted AND captured - refunded - disputed <> 0 AND captured_at > :edge
    GROUP BY donor_key ORDER BY raised DESC, at, donor_key LIMIT 100
    """
)


def gift(chance: random.Random, number: int, creators: int) -> PaymentChanged:
    """A donation of the last 24 hours, of every third the last hour; every eighth amount is off the menu."""
    ago = chance.uniform(0, 3_600 if number % 3 == 0 else 86_400)
    return payment(
        f"pay_{number:026d}",
        chance.choice((*MENU, chance.randrange(100, 50_000))),
        pledge_id=f"plg_{number:026d}",
        donor_id=f"dnr_{number:026d}",
        creator_id=f"crt_{chance.randrange(creators):026d}",
        source=Source(platform=chance.choice(PLATFORMS), campaign=chance.choice((None, "a", "b"))),
        captured_at=NOW - timedelta(seconds=ago),
        changed_at=NOW,
        anonymous=chance.random() < 0.2,
    )


def quantiles(label: str, taken_s: list[float]) -> None:
    """Print p50 and p99 in milliseconds."""
    taken = sorted(taken_s)
    p99 = taken[min(len(taken) - 1, round(0.99 * len(taken)))]
    print(f"{label:32} p50 {statistics.median(taken) * 1e3:8.2f} ms   p99 {p99 * 1e3:8.2f} ms", flush=True)


async def tally(database: Database, donors: int, creators: int, batch: int) -> None:
    """Count one donation of each donor."""
    chance = random.Random(1)
    created = (creator(f"crt_{n:026d}", f"c{n}", team=f"team {n % 200}") for n in range(creators))
    await handle_events(database, drive(), *created)
    number, taken = 0, []
    while number < donors:
        size = min(chance.randint(1, 2 * batch - 1), donors - number)
        events = [gift(chance, number + n, creators) for n in range(size)]
        number += size
        async with database.transaction() as session:
            began = time.perf_counter()
            await HANDLERS[PaymentChanged](events, session)
            taken.append((time.perf_counter() - began) / size)
    print(f"an event, batches of {batch}: median {statistics.median(taken) * 1e6:.0f} µs", flush=True)


async def sum_up(database: Database, label: str, payments: int, now: datetime) -> None:
    """Bring the sums up to date, and print what each payment and each transaction took."""
    taken, done = [], False
    while not done:
        began = time.perf_counter()
        async with database.transaction() as session:
            done = await session.run_sync(lambda inner: standings.bring_up_to_date(inner, DRIVE, now))
        taken.append(time.perf_counter() - began)
    print(f"{label}: {sum(taken) / payments * 1e6:.0f} µs a payment", flush=True)
    quantiles("  transactions", taken)


async def read(
    database: Database, label: str, act: Callable[[SyncTransaction], Any], times: int = 200
) -> None:
    """Print what a read takes."""
    taken = []
    for _ in range(times):
        began = time.perf_counter()
        async with database.reading() as session:
            await session.run_sync(act)
        taken.append(time.perf_counter() - began)
    quantiles(label, taken)


async def read_boards(database: Database, donors: int, creators: int) -> None:
    """Read the first hundred of each board, and the ranks around a random place."""
    chance = random.Random(2)
    anyone: dict[Board, Callable[[], str]] = {
        "creators": lambda: f"crt_{chance.randrange(creators):026d}",
        "donors": lambda: f"dnr_{chance.randrange(donors):026d}",
        "teams": lambda: f"team {chance.randrange(200)}",
        "sources": lambda: "youtube/a",
    }
    for board, key in anyone.items():
        for window in get_args(Window):
            await read(database, f"{board} {window} first 100", _first(board, window))
            await read(database, f"{board} {window} around", _around(board, window, key))
    for window, span in (("24h", timedelta(hours=24)), ("1h", timedelta(hours=1))):
        await read(database, f"donors {window} by a scan", _scan(microseconds(NOW - span)), 20)


def _scan(edge: int) -> Callable[[SyncTransaction], Any]:
    return lambda connection: connection.execute(SCAN, {"drive": DRIVE, "edge": edge}).all()


def _first(board: Board, window: Window) -> Callable[[SyncTransaction], Any]:
    return lambda connection: boards.top(connection, DRIVE, board, window, 100)


def _around(board: Board, window: Window, key: Callable[[], str]) -> Callable[[SyncTransaction], Any]:
    return lambda connection: boards.around(connection, DRIVE, board, window, 25, key())


async def main() -> None:
    """Fill a fresh database and measure."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--postgres", default="", help="URL of an empty database; without it, SQLite")
    parser.add_argument("--donors", type=int, default=100_000)
    parser.add_argument("--creators", type=int, default=10_000)
    parser.add_argument("--batch", type=int, default=250)
    parser.add_argument("--events-only", action="store_true")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        async with open_database(Path(folder), given.postgres) as database:
            await tally(database, given.donors, given.creators, given.batch)
            if given.events_only:
                return
            await sum_up(database, "adding to the sums", given.donors, NOW)
            await read_boards(database, given.donors, given.creators)
            await sum_up(database, "an hour later", given.donors // 3, NOW + timedelta(hours=1))


if __name__ == "__main__":
    asyncio.run(main())
