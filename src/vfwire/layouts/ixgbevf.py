"""Registers of the 82599 virtual function: BAR0 offsets, bits, and the table that names every offset.

All offsets are bytes into the 16 KiB of BAR0, all registers 32 bits wide, little-endian. Datasheet names.
Sources: 82599 datasheet 8.3 (device registers, VF); Linux ixgbevf regs.h and defines.h; DPDK base/ixgbe_vf.h.

    page 0  0x0000  control, interrupts, mailbox, packet split     traps: an access has side effects
    page 1  0x1000  receive queues (and the receive counters)      plain memory: mapped and polled
    page 2  0x2000  transmit queues (and the transmit counters)    plain memory: mapped and polled
    page 3  0x3000  receive memory wrap                            traps, rarely read

The counters VFGPRC, VFGORC and VFMPRC lie in the stride of receive queue 0, VFGPTC and VFGOTC in that of
transmit queue 0, in places where no queue register is: `decode` goes by exact offset, never by range.
The X550's VFMRQC, VFRSSRK and VFRETA (0x3000 on) do not exist here: an 82599 VF has its PF's RSS (mailbox).
"""

from vfwire.layouts.register import Register, by_offset

# --- PCI: what the function says it is (82599 datasheet 9; a VF's subsystem is its PF's, here an X520-2) ----
PCI_VENDOR = 0x8086
PCI_DEVICE = 0x10ED
PCI_REVISION = 0x01
PCI_CLASS = 0x020000
PCI_SUBSYSTEM_VENDOR = 0x8086
PCI_SUBSYSTEM = 0x7A11
PCI_MSIX_CAPABILITY = 0x70
PCI_EXPRESS_CAPABILITY = 0xA0
BAR0_SIZE = 0x4000
BAR3_SIZE = 0x4000
MSIX_VECTORS = 3
MSIX_TABLE_BAR = 3
MSIX_TABLE_OFFSET = 0x0000
MSIX_PBA_OFFSET = 0x2000
MAX_QUEUES = 8  # what there are registers for; how many of them a VF owns, its PF says (mailbox)
QUEUE_STRIDE = 0x40

# --- Control and status -----------------------------------------------------------------------------------
VFCTRL = 0x0000
VFSTATUS = 0x0008
VFLINKS = 0x0010
VFFRTIMER = 0x0048
VFRXMEMWRAP = 0x3190

# --- Interrupts -------------------------------------------------------------------------------------------
VTEICR = 0x0100
VTEICS = 0x0104
VTEIMS = 0x0108
VTEIMC = 0x010C
VTEIAC = 0x0110
VTEIAM = 0x0114
VTIVAR = 0x0120  # + 4 * (queue // 2)
VTIVAR_MISC = 0x0140
VTRSCINT = 0x0180  # + 4 * vector
VTEITR = 0x0820  # + 4 * vector

# --- Mailbox ----------------------------------------------------------------------------------------------
VFMBMEM = 0x0200  # 16 dwords
VFMAILBOX = 0x02FC

# --- Receive: one block of QUEUE_STRIDE for each queue ----------------------------------------------------
VFPSRTYPE = 0x0300
VFRDBAL = 0x1000
VFRDBAH = 0x1004
VFRDLEN = 0x1008
VFDCA_RXCTRL = 0x100C
VFRDH = 0x1010
VFSRRCTL = 0x1014
VFRDT = 0x1018
VFRXDCTL = 0x1028
VFRSCCTL = 0x102C

# --- Transmit: one block of QUEUE_STRIDE for each queue ---------------------------------------------------
VFTDBAL = 0x2000
VFTDBAH = 0x2004
VFTDLEN = 0x2008
VFDCA_TXCTRL = 0x200C
VFTDH = 0x2010
VFTDT = 0x2018
VFTXDCTL = 0x2028
VFTDWBAL = 0x2038
VFTDWBAH = 0x203C

# --- Counters: they wrap, and a read does not clear them --------------------------------------------------
VFGPRC = 0x101C
VFGORC_LSB = 0x1020
VFGORC_MSB = 0x1024
VFMPRC = 0x1034
VFGPTC = 0x201C
VFGOTC_LSB = 0x2020
VFGOTC_MSB = 0x2024
OCTET_COUNTER_BITS = 36  # VFGORC and VFGOTC: 32 bits in LSB, 4 in MSB

# --- VFCTRL -----------------------------------------------------------------------------------------------
CTRL_RST = 1 << 26

# --- VFLINKS ----------------------------------------------------------------------------------------------
LINKS_UP = 1 << 30
LINKS_SPEED_MASK = 3 << 28
LINKS_SPEED_100M = 1 << 28
LINKS_SPEED_1G = 2 << 28
LINKS_SPEED_10G = 3 << 28

# --- VTEICR, VTEICS, VTEIMS, VTEIMC, VTEIAC, VTEIAM: one bit for each MSI-X vector ------------------------
EICR_MASK = (1 << MSIX_VECTORS) - 1

# --- VTEITR -----------------------------------------------------------------------------------------------
EITR_INTERVAL_SHIFT = 3
EITR_INTERVAL_MASK = 0x00000FF8  # the interval where it lies; shifted down it counts EITR_UNIT_NS
EITR_UNIT_NS = 2048  # at 10 Gb/s and 1 Gb/s (DPDK ixgbe_ethdev.h)
EITR_LLI_MOD = 1 << 15
EITR_LL_CREDIT_SHIFT = 16
EITR_LL_CREDIT_MASK = 0x1F << 16
EITR_COUNTER_SHIFT = 21
EITR_COUNTER_MASK = 0x7F << 21
EITR_CNT_WDIS = 1 << 31  # this write leaves the running counter alone

# --- VTIVAR, VTIVAR_MISC: a byte for each cause -----------------------------------------------------------
IVAR_VALID = 0x80
IVAR_VECTOR_MASK = 0x03
IVAR_QUEUES_PER_REGISTER = 2
IVAR_QUEUE_SHIFT = 16  # * (queue % 2)
IVAR_TX_SHIFT = 8  # a queue's transmit cause lies above its receive cause

# --- VFMAILBOX --------------------------------------------------------------------------------------------
MAILBOX_REQ = 1 << 0  # W: a message for the PF lies in VFMBMEM
MAILBOX_ACK = 1 << 1  # W: the PF's message was taken
MAILBOX_VFU = 1 << 2  # RW: the VF holds the buffer
MAILBOX_PFU = 1 << 3  # RO: the PF holds the buffer
MAILBOX_PFSTS = 1 << 4  # RC: the PF left a message
MAILBOX_PFACK = 1 << 5  # RC: the PF took the VF's message
MAILBOX_RSTI = 1 << 6  # RO: the PF is in reset
MAILBOX_RSTD = 1 << 7  # RC: the PF's reset is over
MAILBOX_R2C_BITS = MAILBOX_PFSTS | MAILBOX_PFACK | MAILBOX_RSTD
MAILBOX_WORDS = 16

# --- VFPSRTYPE: headers at which a packet may be split, and the number of queues that RSS spreads over ----
PSRTYPE_TCPHDR = 1 << 4
PSRTYPE_UDPHDR = 1 << 5
PSRTYPE_IPV4HDR = 1 << 8
PSRTYPE_IPV6HDR = 1 << 9
PSRTYPE_L2HDR = 1 << 12
PSRTYPE_RQPL_SHIFT = 29  # log2 of the queues
PSRTYPE_RQPL_MASK = 7 << 29

# --- VFSRRCTL ---------------------------------------------------------------------------------------------
SRRCTL_BSIZEPKT_MASK = 0x0000007F  # packet buffer in units of 1 KiB (the 82599 uses bits 4:0, 1 to 16 KiB)
SRRCTL_BSIZEPKT_UNIT = 1024  # bytes
SRRCTL_BSIZEPKT_SHIFT = 10  # bytes >> 10 gives the field
SRRCTL_BSIZEHDR_SHIFT = 8
SRRCTL_BSIZEHDR_MASK = 0x00003F00  # header buffer in units of 64 bytes
SRRCTL_BSIZEHDR_UNIT = 64  # bytes
SRRCTL_RDMTS_SHIFT = 22
SRRCTL_RDMTS_MASK = 0x01C00000
SRRCTL_DESCTYPE_SHIFT = 25
SRRCTL_DESCTYPE_MASK = 0x0E000000
SRRCTL_DESCTYPE_LEGACY = 0 << 25
SRRCTL_DESCTYPE_ADV_ONEBUF = 1 << 25
SRRCTL_DESCTYPE_HDR_SPLIT = 2 << 25
SRRCTL_DESCTYPE_HDR_REPLICATION_LARGE_PKT = 4 << 25
SRRCTL_DESCTYPE_HDR_SPLIT_ALWAYS = 5 << 25
SRRCTL_DROP_EN = 1 << 28

# --- VFRXDCTL ---------------------------------------------------------------------------------------------
RXDCTL_RLPML_MASK = 0x00003FFF  # X540 and later
RXDCTL_RLPML_EN = 1 << 15  # X540 and later
RXDCTL_ENABLE = 1 << 25
RXDCTL_SWFLSH = 1 << 26
RXDCTL_VME = 1 << 30  # take the VLAN tag out of the packet into the descriptor

# --- VFTXDCTL ---------------------------------------------------------------------------------------------
TXDCTL_PTHRESH_SHIFT = 0
TXDCTL_PTHRESH_MASK = 0x7F
TXDCTL_HTHRESH_SHIFT = 8
TXDCTL_HTHRESH_MASK = 0x7F << 8
TXDCTL_WTHRESH_SHIFT = 16
TXDCTL_WTHRESH_MASK = 0x7F << 16
TXDCTL_ENABLE = 1 << 25
TXDCTL_SWFLSH = 1 << 26

# --- VFTDWBAL ---------------------------------------------------------------------------------------------
TDWBAL_HEAD_WB_ENABLE = 1 << 0  # write the head to memory instead of DD to descriptors
TDWBAL_SEQNUM_WB_ENABLE = 1 << 1
TDWBAL_ADDRESS_MASK = 0xFFFFFFFC

# --- VFDCA_RXCTRL, VFDCA_TXCTRL ---------------------------------------------------------------------------
DCA_RXCTRL_DESC_DCA_EN = 1 << 5
DCA_RXCTRL_HEAD_DCA_EN = 1 << 6
DCA_RXCTRL_DATA_DCA_EN = 1 << 7
DCA_RXCTRL_DESC_RRO_EN = 1 << 9
DCA_RXCTRL_DATA_WRO_EN = 1 << 13
DCA_RXCTRL_HEAD_WRO_EN = 1 << 15
DCA_TXCTRL_DESC_DCA_EN = 1 << 5
DCA_TXCTRL_DESC_RRO_EN = 1 << 9
DCA_TXCTRL_DESC_WRO_EN = 1 << 11
DCA_TXCTRL_DATA_RRO_EN = 1 << 13

# --- Rings ------------------------------------------------------------------------------------------------
DESCRIPTOR_SIZE = 16  # bytes
RING_BYTES_MULTIPLE = 128  # VFRDLEN, VFTDLEN: whole cache lines, 8 descriptors
RING_BASE_ALIGNMENT = 128  # bytes
RING_LENGTH_MASK = 0x000FFF80  # VFRDLEN, VFTDLEN: bits 19:7
RING_INDEX_MASK = 0x0000FFFF  # head and tail: bits 15:0


REGISTERS: tuple[Register, ...] = (
    Register("VFCTRL", VFCTRL, 0, 1, "WO", "software reset of the function"),
    Register("VFSTATUS", VFSTATUS, 0, 1, "RO", "status; read to flush posted writes"),
    Register("VFLINKS", VFLINKS, 0, 1, "RO", "link up and its speed"),
    Register("VFFRTIMER", VFFRTIMER, 0, 1, "RO", "free running timer"),
    Register("VTEICR", VTEICR, 0, 1, "RW1C", "interrupt causes that are pending"),
    Register("VTEICS", VTEICS, 0, 1, "WO", "raise interrupt causes"),
    Register("VTEIMS", VTEIMS, 0, 1, "RW1S", "interrupts that are enabled"),
    Register("VTEIMC", VTEIMC, 0, 1, "WO1C", "disable interrupts"),
    Register("VTEIAC", VTEIAC, 0, 1, "RW", "causes cleared when their MSI-X message is sent"),
    Register("VTEIAM", VTEIAM, 0, 1, "RW", "interrupts disabled when their MSI-X message is sent"),
    Register("VTIVAR", VTIVAR, 4, MAX_QUEUES // 2, "RW", "vector of each queue's receive and transmit cause"),
    Register("VTIVAR_MISC", VTIVAR_MISC, 0, 1, "RW", "vector of the mailbox cause"),
    Register("VTRSCINT", VTRSCINT, 4, MSIX_VECTORS, "RW", "receive side coalescing by vector"),
    Register("VFMBMEM", VFMBMEM, 4, MAILBOX_WORDS, "RW", "mailbox buffer, shared with the PF"),
    Register("VFMAILBOX", VFMAILBOX, 0, 1, "MIX", "mailbox hand-over"),
    Register("VFPSRTYPE", VFPSRTYPE, 0, 1, "RW", "header split types and RSS queue count"),
    Register("VTEITR", VTEITR, 4, MSIX_VECTORS, "RW", "least time between two interrupts of a vector"),
    Register("VFRDBAL", VFRDBAL, QUEUE_STRIDE, MAX_QUEUES, "RW", "receive ring address, bits 31:7"),
    Register("VFRDBAH", VFRDBAH, QUEUE_STRIDE, MAX_QUEUES, "RW", "receive ring address, bits 63:32"),
    Register("VFRDLEN", VFRDLEN, QUEUE_STRIDE, MAX_QUEUES, "RW", "receive ring length in bytes"),
    Register(
        "VFDCA_RXCTRL", VFDCA_RXCTRL, QUEUE_STRIDE, MAX_QUEUES, "RW", "receive cache hints and ordering"
    ),
    Register(
        "VFRDH", VFRDH, QUEUE_STRIDE, MAX_QUEUES, "RO", "receive head: the next descriptor the device fills"
    ),
    Register(
        "VFSRRCTL", VFSRRCTL, QUEUE_STRIDE, MAX_QUEUES, "RW", "receive buffer sizes, descriptor type, drop"
    ),
    Register(
        "VFRDT", VFRDT, QUEUE_STRIDE, MAX_QUEUES, "RW", "receive tail: one past the last descriptor offered"
    ),
    Register("VFRXDCTL", VFRXDCTL, QUEUE_STRIDE, MAX_QUEUES, "RW", "receive queue enable, VLAN strip"),
    Register("VFRSCCTL", VFRSCCTL, QUEUE_STRIDE, MAX_QUEUES, "RW", "receive side coalescing by queue"),
    Register("VFGPRC", VFGPRC, 0, 1, "RO", "good packets received"),
    Register("VFGORC_LSB", VFGORC_LSB, 0, 1, "RO", "good octets received, bits 31:0"),
    Register("VFGORC_MSB", VFGORC_MSB, 0, 1, "RO", "good octets received, bits 35:32"),
    Register("VFMPRC", VFMPRC, 0, 1, "RO", "multicast packets received"),
    Register("VFTDBAL", VFTDBAL, QUEUE_STRIDE, MAX_QUEUES, "RW", "transmit ring address, bits 31:7"),
    Register("VFTDBAH", VFTDBAH, QUEUE_STRIDE, MAX_QUEUES, "RW", "transmit ring address, bits 63:32"),
    Register("VFTDLEN", VFTDLEN, QUEUE_STRIDE, MAX_QUEUES, "RW", "transmit ring length in bytes"),
    Register(
        "VFDCA_TXCTRL", VFDCA_TXCTRL, QUEUE_STRIDE, MAX_QUEUES, "RW", "transmit cache hints and ordering"
    ),
    Register(
        "VFTDH", VFTDH, QUEUE_STRIDE, MAX_QUEUES, "RO", "transmit head: the next descriptor the device takes"
    ),
    Register(
        "VFTDT", VFTDT, QUEUE_STRIDE, MAX_QUEUES, "RW", "transmit tail: one past the last descriptor to send"
    ),
    Register("VFTXDCTL", VFTXDCTL, QUEUE_STRIDE, MAX_QUEUES, "RW", "transmit queue enable, thresholds"),
    Register(
        "VFTDWBAL", VFTDWBAL, QUEUE_STRIDE, MAX_QUEUES, "RW", "head write-back address, bits 31:2, and enable"
    ),
    Register("VFTDWBAH", VFTDWBAH, QUEUE_STRIDE, MAX_QUEUES, "RW", "head write-back address, bits 63:32"),
    Register("VFGPTC", VFGPTC, 0, 1, "RO", "good packets sent"),
    Register("VFGOTC_LSB", VFGOTC_LSB, 0, 1, "RO", "good octets sent, bits 31:0"),
    Register("VFGOTC_MSB", VFGOTC_MSB, 0, 1, "RO", "good octets sent, bits 35:32"),
    Register("VFRXMEMWRAP", VFRXMEMWRAP, 0, 1, "RO", "wraps of the receive packet buffer"),
)


_BY_OFFSET = by_offset(REGISTERS)


def decode(offset: int) -> tuple[str, int] | None:
    """The register at exactly this byte offset as (name, index), or None where the VF has none."""
    return _BY_OFFSET.get(offset)
