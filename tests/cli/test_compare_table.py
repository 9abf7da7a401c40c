"""The table of `vfwire compare`, wherever it is printed."""

import io

import pytest
from rich import box
from rich.console import Console
from rich.table import Table

from vfwire.cli.compare_table import number, print_whole, scaled

LOSS = "0.07% of 2,998,336\nno receive descriptor 2,014"


@pytest.mark.parametrize("columns", [3, 6])
@pytest.mark.parametrize("terminal", [True, False])
def test_no_column_is_cut_off(terminal: bool, columns: int) -> None:
    """On a terminal that is too narrow cells fold and lines run over; in a file every cell keeps its lines."""
    table = Table(box=box.SIMPLE_HEAD)
    table.add_column("", no_wrap=True)
    for column in range(columns):
        table.add_column(f"path {column}", justify="right", min_width=18)
    table.add_row("lost", *[LOSS] * columns)
    console = Console(file=io.StringIO(), width=60, force_terminal=terminal)
    print_whole(console, table)
    text = console.file.getvalue()  # type: ignore[attr-defined]
    assert all(f"path {column}" in text for column in range(columns))
    assert text.count("2,014") == text.count("descriptor") == columns
    assert (text.count("no receive descriptor 2,014") == columns) != terminal


@pytest.mark.parametrize(
    ("value", "as_number", "as_scaled"),
    [
        (0.5, "0.5 ns", "0.5 ns"),
        (999.4, "999 ns", "999 ns"),
        (999.7, "1,000 ns", "1 kns"),
        (1234.5, "1,234 ns", "1.23 kns"),
        (999_700, "999,700 ns", "1 Mns"),
    ],
)
def test_a_value_just_below_a_thousand_is_told_in_digits(
    value: float, as_number: str, as_scaled: str
) -> None:
    assert number(value, "ns") == as_number
    assert scaled(value, "ns") == as_scaled
