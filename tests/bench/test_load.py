"""The load generators: how they delimit responses and frames, number requests and compute rates."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from itertools import count
from pathlib import Path

import pytest

from bench.donation_run import arrivals
from bench.figures.catchup import TooSlow, consumed_per_s
from bench.floors import chunk_of
from bench.http_load import BadResponse, Load, Order, post, response_length
from bench.process_usage import Usage
from bench.row_copies import multiply
from bench.stream_load import sequence_in


def test_response_ends_after_its_content_length() -> None:
    head = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n"
    assert response_length(head + b"hello") == len(head) + 5
    assert response_length(head[:-2]) is None


def test_response_without_content_ends_after_its_head() -> None:
    head = b"HTTP/1.1 304 Not Modified\r\netag: x\r\n\r\n"
    assert response_length(head) == len(head)


def test_response_of_unknown_length_is_refused() -> None:
    with pytest.raises(BadResponse):
        response_length(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n")


def test_each_request_has_a_number_of_its_own_and_the_length_it_claims() -> None:
    order = Order(0, post("/p", {"reference": "r-{number}"}, {"Idempotency-Key": "k-{number}"}), 1, 1.0)
    load = Load(order)
    first, second = load.request(), load.request()
    assert first != second
    assert b"Idempotency-Key: k-0000000001\r\n" in first
    head, _, body = first.partition(b"\r\n\r\n")
    assert body == b'{"reference": "r-0000000001"}'
    assert f"Content-Length: {len(body)}".encode() in head


def test_sequence_of_a_frame_is_found_only_if_complete() -> None:
    assert sequence_in(chunk_of(400, 1_700_000_000.5)) == 1_700_000_000_500
    assert sequence_in(b'"sequence":12') is None
    assert sequence_in(b": comment\n\n") is None


def test_floor_frame_has_the_bytes_of_the_real_one() -> None:
    size, _, rest = chunk_of(6_979, 1.0).partition(b"\r\n")
    assert int(size, 16) == len(rest) - 2
    assert abs(len(rest) - 2 - 6_979) <= 4


def test_catchup_counts_from_the_last_look_before_it_was_under_way() -> None:
    counts = iter((10.0, 14.0, 60.0, 110.0))
    seconds = count()  # two looks at the clock before each answer: the answers are of seconds 2, 4, 6 and 8
    found = consumed_per_s(
        lambda: next(counts), 10.0, 100, clock=lambda: float(next(seconds)), sleep=lambda _: None
    )
    assert found == pytest.approx((100 - 4) / (8 - 4))


def test_catchup_that_takes_too_long_says_how_far_it_came() -> None:
    seconds = count(step=50)
    with pytest.raises(TooSlow, match="30 of 100 events"):
        consumed_per_s(lambda: 30.0, 0.0, 100, clock=lambda: float(next(seconds)), sleep=lambda _: None)


def test_cores_are_cpu_seconds_a_second() -> None:
    before, after = Usage(10.0, {"gateway": 1.0}), Usage(14.0, {"gateway": 3.0})
    assert after.cores_since(before) == {"gateway": 0.5}


def test_arrivals_have_the_rate_and_are_the_same_each_time() -> None:
    found = arrivals(50.0, 20.0)
    assert found == arrivals(50.0, 20.0)
    assert 850 < len(found) < 1_150
    assert arrivals(0.0, 20.0) == ()


def test_copied_rows_have_identifiers_of_their_own_that_agree_between_tables(tmp_path: Path) -> None:
    with closing(sqlite3.connect(tmp_path / "pledges.db")) as database:
        database.executescript(
            "CREATE TABLE drives (id TEXT PRIMARY KEY);"
            "CREATE TABLE pledges (id TEXT PRIMARY KEY, drive_id TEXT, amount BIGINT) WITHOUT ROWID;"
            "CREATE TABLE words (pledge_id TEXT PRIMARY KEY REFERENCES pledges (id), name TEXT);"
            "INSERT INTO drives VALUES ('d');"
            "INSERT INTO pledges VALUES ('p1', 'd', 5), ('p2', 'd', 7);"
            "INSERT INTO words VALUES ('p1', 'Amal'), ('p2', 'Ben')"
        )
    with closing(sqlite3.connect(tmp_path / "leaderboard.db")) as database:
        database.executescript(
            "CREATE TABLE drives (drive_id TEXT PRIMARY KEY, sequence BIGINT);"
            "CREATE TABLE drive_log (drive_id TEXT, sequence BIGINT, PRIMARY KEY (drive_id, sequence));"
            "INSERT INTO drives VALUES ('d', 3);"
            "INSERT INTO drive_log VALUES ('d', 1), ('d', 2), ('d', 3)"
        )
    assert multiply(tmp_path, 10) == 10
    with closing(sqlite3.connect(tmp_path / "pledges.db")) as database:
        assert database.execute("SELECT count(*), count(DISTINCT drive_id) FROM pledges").fetchone() == (
            10,
            1,
        )
        orphans = "SELECT count(*) FROM words WHERE pledge_id NOT IN (SELECT id FROM pledges)"
        assert database.execute(orphans).fetchone() == (0,)
        assert database.execute("SELECT count(*) FROM words").fetchone() == (10,)
    with closing(sqlite3.connect(tmp_path / "leaderboard.db")) as database:
        assert [row[0] for row in database.execute("SELECT sequence FROM drive_log ORDER BY 1")] == list(
            range(1, 16)
        )
        assert database.execute("SELECT sequence FROM drives").fetchone() == (15,)
