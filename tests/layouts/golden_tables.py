"""Reads the golden tables: constants as the vendors' headers have them, a column for each witness.

`golden/*.csv`: our name, the header's name, its value in Linux (ixgbevf regs.h, defines.h, mbx.h,
ixgbe_type.h, ixgbe_mbx.h, pci_regs.h) and its value in DPDK (ixgbe base code, rte_pci.h); empty where
that header does not have it.
"""

import csv
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

FOLDER = Path(__file__).parent / "golden"
WITNESSES = ("linux", "dpdk")


class Fact(NamedTuple):
    name: str
    header_name: str
    witness: str
    value: int


def facts(table: str) -> Iterator[Fact]:
    """Every value that a witness gives in `golden/<table>.csv`."""
    with (FOLDER / f"{table}.csv").open(newline="") as file:
        for row in csv.DictReader(file):
            for witness in WITNESSES:
                if row[witness]:
                    yield Fact(row["name"], row["header_name"], witness, int(row[witness], 0))
