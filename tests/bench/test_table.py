"""The table of the results, in the terminal and in the document."""

from __future__ import annotations

from pathlib import Path

import pytest

from bench import table
from tests.bench.test_results import example


@pytest.mark.parametrize(
    ("value", "shown"),
    [(12_345.6, "12,346"), (350, "350"), (17.43, "17.4"), (0.8712, "0.871"), (20.0, "20"), (None, "–")],
)
def test_number_is_short(value: float | None, shown: str) -> None:
    assert table.number(value) == shown


def test_row_says_whether_the_aim_is_reached() -> None:
    reads, fanout = table.rows(example().as_json())
    assert reads[0] == "reads"
    assert reads[2:] == ("12,346 reads/s", "≥ 25,000 ✗", "30,000", "0.411", "2 ms / 9.88 ms")
    assert fanout[2:] == ("20 µs", "≤ 18 ✗", "8", "2.5", "–")


def test_document_gets_the_table_between_its_comments_and_keeps_the_rest(tmp_path: Path) -> None:
    file = tmp_path / "performance.md"
    file.write_text(f"before\n{table.BEGIN}\nold\n{table.END}\nafter\n")
    table.document(example().as_json(), file)
    once = file.read_text()
    table.document(example().as_json(), file)
    assert file.read_text() == once
    assert once.startswith(f"before\n{table.BEGIN}\n")
    assert once.endswith(f"{table.END}\nafter\n")
    assert "old" not in once
    assert "| `reads` | totals of one gateway process, full body | 12,346 reads/s |" in once
    assert "Not measured: `intake` (no port)." in once


def test_document_without_the_comments_is_left_alone(tmp_path: Path) -> None:
    file = tmp_path / "performance.md"
    file.write_text("nothing to replace\n")
    with pytest.raises(table.NoSection):
        table.document(example().as_json(), file)
    assert file.read_text() == "nothing to replace\n"


def test_performance_document_has_the_section() -> None:
    text = table.DOCUMENT.read_text()
    assert 0 <= text.find(table.BEGIN) < text.find(table.END)
