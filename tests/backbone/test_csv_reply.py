"""CSV tables: neutralised texts, unchanged numbers, RFC 4180 quoting."""

from __future__ import annotations

import csv
import io

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backbone.http.csv_reply import cell, csv_text, wants_csv


@pytest.mark.parametrize(
    "text",
    ["=1+1", "+1 555", "-1+2", "@SUM(A1)", "\t=1", "\r=1", "\n=1", " =1", "＝1", "\x01x", "-", "-1.5e3"],
)
def test_text_that_begins_like_a_formula_is_neutralised(text: str) -> None:
    assert cell(text) == f"'{text}"


@pytest.mark.parametrize("value", ["-12.50", "0", "12", "-3", 7, -7, "abc", "عطاء", "a=b", ""])
def test_numbers_and_other_texts_are_unchanged(value: str | int) -> None:
    assert cell(value) == str(value)


@given(st.lists(st.lists(st.text(alphabet=st.characters(codec="utf-8")), min_size=2, max_size=2)))
def test_rows_are_read_back_as_written(rows: list[list[str]]) -> None:
    read = list(csv.reader(io.StringIO(csv_text(["a", "b"], rows), newline="")))
    assert read == [["a", "b"], *([cell(value) for value in row] for row in rows)]


@pytest.mark.parametrize(
    ("accept", "wanted"),
    [
        ("text/csv", True), ("application/json, text/CSV;q=0.5", True), ("text/csv;q=0", False),
        ("text/csv; q=0.000", False), ("*/*", False), ("", False), (None, False),
    ],
)  # fmt: skip
def test_csv_is_sent_only_where_it_is_accepted(accept: str | None, wanted: bool) -> None:
    assert wants_csv(accept) is wanted
