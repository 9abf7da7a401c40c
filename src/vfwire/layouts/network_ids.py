"""PCI vendor and device IDs of network functions: virtual functions, the ENA, and models that hypervisors imitate.

Sources: Amazon's `kernel/linux/ena/ena_pci_id_tbl.h`; DPDK `drivers/net/intel/ixgbe/base/ixgbe_type.h`,
`e1000/base/e1000_hw.h`, `iavf/base/iavf_devids.h`, `drivers/common/mlx5/mlx5_common.h`, `drivers/net/mlx4/mlx4.h`,
`drivers/net/bnxt/bnxt.h`; for the imitations, QEMU `include/hw/pci/pci.h` and `hw/net/`.
"""

from typing import NamedTuple

INTEL = 0x8086
AMAZON = 0x1D0F
MELLANOX = 0x15B3
BROADCOM = 0x14E4
VMWARE = 0x15AD
REDHAT = 0x1AF4
VIRTUALBOX = 0x80EE
PARALLELS = 0x1AB8
REALTEK = 0x10EC
AMD = 0x1022

ENA_PF = 0x0EC2
ENA_LLQ_PF = 0x1EC2
ENA_VF = 0xEC20
ENA_LLQ_VF = 0xEC21
ENA_RESERVED = 0x0051
ENA = frozenset({ENA_PF, ENA_LLQ_PF, ENA_VF, ENA_LLQ_VF, ENA_RESERVED})

IXGBE_82599_VF = 0x10ED
IXGBE_82599_VF_HV = 0x152E
VF_82599 = frozenset({IXGBE_82599_VF, IXGBE_82599_VF_HV})


class VfModel(NamedTuple):
    """What cards a VF may be of, the Linux module that drives it, its vendor and its device IDs."""

    title: str
    module: str
    vendor: int
    devices: frozenset[int]


# Every other VF whose device ID tells that it is one. Those on Hyper-V (…_VF_HV) have IDs of their own.
OTHER_VFS = (
    VfModel("X540 VF", "ixgbevf", INTEL, frozenset({0x1515, 0x1530})),
    VfModel("X550 VF", "ixgbevf", INTEL, frozenset({0x1565, 0x1564, 0x15A8, 0x15A9, 0x15C5, 0x15B4})),
    VfModel("E610 VF", "ixgbevf", INTEL, frozenset({0x57AD})),
    VfModel("82576 VF", "igbvf", INTEL, frozenset({0x10CA, 0x152D})),
    VfModel("I350 VF", "igbvf", INTEL, frozenset({0x1520, 0x152F})),
    VfModel("Intel adaptive VF", "iavf", INTEL, frozenset({0x154C, 0x1571, 0x1889, 0x37CD, 0x374D})),
    VfModel("ConnectX-3 VF", "mlx4_core", MELLANOX, frozenset({0x1004})),
    VfModel("ConnectX VF", "mlx5_core", MELLANOX, frozenset({0x1014, 0x1016, 0x1018, 0x101A, 0x101C, 0x101E})),
    VfModel("BlueField VF", "mlx5_core", MELLANOX, frozenset({0xA2D3})),
    VfModel(
        "NetXtreme VF",
        "bnxt_en",
        BROADCOM,
        frozenset({0x1606, 0x1609, 0x16C1, 0x16CB, 0x16D3, 0x16DC, 0x16E1, 0x1806, 0x1807, 0x1819, 0xD800, 0xD82E}),
    ),
)  # fmt: skip

# Cards that hypervisors imitate in software. The same IDs belong to real cards, long out of sale.
IMITATED = frozenset(
    {
        (INTEL, 0x100E),  # 82540EM: e1000
        (INTEL, 0x100F),  # 82545EM: e1000 in VMware
        (INTEL, 0x1004),  # 82543GC: e1000 in VirtualBox
        (INTEL, 0x10D3),  # 82574L: e1000e
        (INTEL, 0x1209),  # 82551: eepro100
        (INTEL, 0x1229),  # 82557: eepro100
        (REALTEK, 0x8139),  # RTL8139
        (REALTEK, 0x8029),  # NE2000 on PCI
        (AMD, 0x2000),  # PCnet
    }
)
# Subsystem vendors that only a hypervisor writes into a card that it imitates.
IMITATORS = frozenset({REDHAT, VMWARE, VIRTUALBOX, PARALLELS})
VMXNET3 = (VMWARE, 0x07B0)
