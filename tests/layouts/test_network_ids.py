"""The table of network functions against `golden/network_ids.csv`: vendor, device, the Linux module that drives it,
whether Debian's Linux 6.12 carries that ID in the module's aliases, and the name that DPDK's headers give it.
"""

import csv
from pathlib import Path

from vfwire.layouts import network_ids as ids

GOLDEN = Path(__file__).parent / "golden" / "network_ids.csv"


def test_every_function_is_one_that_the_headers_have() -> None:
    ours = {(model.vendor, device, model.module) for model in ids.OTHER_VFS for device in model.devices}
    ours |= {(ids.AMAZON, device, "ena") for device in ids.ENA}
    ours |= {(ids.INTEL, device, "ixgbevf") for device in ids.VF_82599}
    with GOLDEN.open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert all(row["linux"] or row["dpdk"] for row in rows)
    assert ours == {(int(row["vendor"], 16), int(row["device"], 16), row["module"]) for row in rows}


def test_no_function_is_of_two_models() -> None:
    devices = [(model.vendor, device) for model in ids.OTHER_VFS for device in model.devices]
    devices += [(ids.INTEL, device) for device in ids.VF_82599]
    assert len(devices) == len(set(devices)) and not set(devices) & ids.IMITATED
