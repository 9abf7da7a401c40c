"""What a trace calls an 82599 VF's registers and bits."""

from vfwire.layouts import ixgbevf as regs
from vfwire.pci.endpoint import RegionIndex
from vfwire.pci.naming import CONFIG_BITS, MSIX_BITS, RegisterNames, config_registers, msix_registers

_QUEUE_CONTROL = {"ENABLE": regs.RXDCTL_ENABLE, "SWFLSH": regs.RXDCTL_SWFLSH}

IXGBEVF_NAMES = RegisterNames(
    {
        RegionIndex.BAR0: regs.REGISTERS,
        RegionIndex.BAR3: msix_registers(regs.MSIX_VECTORS, regs.MSIX_TABLE_OFFSET, regs.MSIX_PBA_OFFSET),
        RegionIndex.CONFIG: config_registers(regs.PCI_MSIX_CAPABILITY, regs.PCI_EXPRESS_CAPABILITY),
    },
    {
        "VFCTRL": {"RST": regs.CTRL_RST},
        "VFLINKS": {"UP": regs.LINKS_UP, "SPEED_10G": regs.LINKS_SPEED_10G},
        "VFMAILBOX": {
            "REQ": regs.MAILBOX_REQ,
            "ACK": regs.MAILBOX_ACK,
            "VFU": regs.MAILBOX_VFU,
            "PFU": regs.MAILBOX_PFU,
            "PFSTS": regs.MAILBOX_PFSTS,
            "PFACK": regs.MAILBOX_PFACK,
            "RSTI": regs.MAILBOX_RSTI,
            "RSTD": regs.MAILBOX_RSTD,
        },
        "VFRXDCTL": {**_QUEUE_CONTROL, "VME": regs.RXDCTL_VME},
        "VFTXDCTL": _QUEUE_CONTROL,
        "VFSRRCTL": {"DROP_EN": regs.SRRCTL_DROP_EN},
        "VFTDWBAL": {"HEAD_WB_ENABLE": regs.TDWBAL_HEAD_WB_ENABLE},
        **MSIX_BITS,
        **CONFIG_BITS,
    },
)
