from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backbone.clock import rfc3339, rfc3339_of_microseconds
from backbone.database.columns import microseconds


@pytest.mark.parametrize(
    ("moment", "text"),
    [
        (datetime(2022, 1, 7, 12, tzinfo=UTC), "2022-01-07T12:00:00.000Z"),
        (datetime(2022, 1, 7, 12, 0, 0, 999_999, tzinfo=UTC), "2022-01-07T12:00:00.999Z"),
        (datetime(2022, 1, 7, 12, tzinfo=timezone(timedelta(hours=3))), "2022-01-07T09:00:00.000Z"),
        (datetime(166, 1, 13, 0, 58, 39, 789_500, tzinfo=UTC), "0166-01-13T00:58:39.789Z"),
        (datetime(1, 1, 1, tzinfo=UTC), "0001-01-01T00:00:00.000Z"),
    ],
)
def test_moments_are_written_with_four_digits_of_the_year_and_milliseconds(
    moment: datetime, text: str
) -> None:
    assert rfc3339(moment) == text


@given(st.datetimes(timezones=st.just(UTC)))
def test_any_moment_is_written_as_isoformat_writes_it(moment: datetime) -> None:
    expected = moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")
    assert rfc3339(moment) == rfc3339_of_microseconds(microseconds(moment)) == expected
