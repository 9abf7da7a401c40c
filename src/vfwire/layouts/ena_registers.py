"""The Elastic Network Adapter as a PCI function: its identity, BAR0's registers, their bits, reset reasons.

All offsets are bytes into BAR0, all registers 32 bits wide, little-endian. Names are those of the vendor's
headers without ENA_REGS_ and _OFF. A driver need not read any of them: it writes a request to MMIO_REG_READ and
the device answers by DMA (readless MMIO; `ena_messages.MMIO_RESPONSE`).
Only this page's offsets are fixed. Where doorbells and interrupt registers lie, the device says in its answers.
Sources: amzn-drivers `ena_regs_defs.h`, `ena_pci_id_tbl.h`; DPDK `drivers/net/ena/base/ena_defs/ena_regs_defs.h`.
"""

from vfwire.layouts.register import Register, by_offset

# --- PCI (ena_pci_id_tbl.h; BARs and MSI-X as lspci shows them on EC2) ----------------------------------------
PCI_VENDOR = 0x1D0F
PCI_DEVICE_VF = 0xEC20
PCI_DEVICE_LLQ_VF = 0xEC21
PCI_CLASS = 0x020000
PCI_REVISION_READLESS = 0  # bit 0 of the revision set: the device has no readless MMIO (ena_netdev.c, probe)
PCI_REVISION_MMIO_READ_DISABLE = 1

# --- Registers ------------------------------------------------------------------------------------------------
VERSION = 0x0
CONTROLLER_VERSION = 0x4
CAPS = 0x8
CAPS_EXT = 0xC
AQ_BASE_LO = 0x10
AQ_BASE_HI = 0x14
AQ_CAPS = 0x18
ACQ_BASE_LO = 0x20
ACQ_BASE_HI = 0x24
ACQ_CAPS = 0x28
AQ_DB = 0x2C
ACQ_TAIL = 0x30
AENQ_CAPS = 0x34
AENQ_BASE_LO = 0x38
AENQ_BASE_HI = 0x3C
AENQ_HEAD_DB = 0x40
AENQ_TAIL = 0x44
INTR_MASK = 0x4C
DEV_CTL = 0x54
DEV_STS = 0x58
MMIO_REG_READ = 0x5C
MMIO_RESP_LO = 0x60
MMIO_RESP_HI = 0x64
RSS_IND_ENTRY_UPDATE = 0x68
PHC_DB = 0x100

# --- VERSION, CONTROLLER_VERSION ------------------------------------------------------------------------------
VERSION_MINOR_VERSION_MASK = 0xFF
VERSION_MAJOR_VERSION_SHIFT = 8
VERSION_MAJOR_VERSION_MASK = 0xFF00
CONTROLLER_VERSION_SUBMINOR_VERSION_MASK = 0xFF
CONTROLLER_VERSION_MINOR_VERSION_SHIFT = 8
CONTROLLER_VERSION_MINOR_VERSION_MASK = 0xFF00
CONTROLLER_VERSION_MAJOR_VERSION_SHIFT = 16
CONTROLLER_VERSION_MAJOR_VERSION_MASK = 0xFF0000
CONTROLLER_VERSION_IMPL_ID_SHIFT = 24
CONTROLLER_VERSION_IMPL_ID_MASK = 0xFF000000

# --- CAPS: timeouts in units of 100 ms ------------------------------------------------------------------------
CAPS_CONTIGUOUS_QUEUE_REQUIRED_MASK = 0x1
CAPS_RESET_TIMEOUT_SHIFT = 1
CAPS_RESET_TIMEOUT_MASK = 0x3E
CAPS_DMA_ADDR_WIDTH_SHIFT = 8
CAPS_DMA_ADDR_WIDTH_MASK = 0xFF00
CAPS_ADMIN_CMD_TO_SHIFT = 16
CAPS_ADMIN_CMD_TO_MASK = 0xF0000

# --- AQ_CAPS, ACQ_CAPS, AENQ_CAPS: depth in entries, entry size in bytes --------------------------------------
AQ_CAPS_AQ_DEPTH_MASK = 0xFFFF
AQ_CAPS_AQ_ENTRY_SIZE_SHIFT = 16
AQ_CAPS_AQ_ENTRY_SIZE_MASK = 0xFFFF0000
ACQ_CAPS_ACQ_DEPTH_MASK = 0xFFFF
ACQ_CAPS_ACQ_ENTRY_SIZE_SHIFT = 16
ACQ_CAPS_ACQ_ENTRY_SIZE_MASK = 0xFFFF0000
AENQ_CAPS_AENQ_DEPTH_MASK = 0xFFFF
AENQ_CAPS_AENQ_ENTRY_SIZE_SHIFT = 16
AENQ_CAPS_AENQ_ENTRY_SIZE_MASK = 0xFFFF0000

# --- DEV_CTL --------------------------------------------------------------------------------------------------
DEV_CTL_DEV_RESET_MASK = 0x1
DEV_CTL_AQ_RESTART_SHIFT = 1
DEV_CTL_AQ_RESTART_MASK = 0x2
DEV_CTL_QUIESCENT_SHIFT = 2
DEV_CTL_QUIESCENT_MASK = 0x4
DEV_CTL_IO_RESUME_SHIFT = 3
DEV_CTL_IO_RESUME_MASK = 0x8
DEV_CTL_RESET_REASON_EXT_SHIFT = 24
DEV_CTL_RESET_REASON_EXT_MASK = 0xF000000
DEV_CTL_RESET_REASON_SHIFT = 28
DEV_CTL_RESET_REASON_MASK = 0xF0000000

# --- DEV_STS --------------------------------------------------------------------------------------------------
DEV_STS_READY_MASK = 0x1
DEV_STS_AQ_RESTART_IN_PROGRESS_SHIFT = 1
DEV_STS_AQ_RESTART_IN_PROGRESS_MASK = 0x2
DEV_STS_AQ_RESTART_FINISHED_SHIFT = 2
DEV_STS_AQ_RESTART_FINISHED_MASK = 0x4
DEV_STS_RESET_IN_PROGRESS_SHIFT = 3
DEV_STS_RESET_IN_PROGRESS_MASK = 0x8
DEV_STS_RESET_FINISHED_SHIFT = 4
DEV_STS_RESET_FINISHED_MASK = 0x10
DEV_STS_FATAL_ERROR_SHIFT = 5
DEV_STS_FATAL_ERROR_MASK = 0x20
DEV_STS_QUIESCENT_STATE_IN_PROGRESS_SHIFT = 6
DEV_STS_QUIESCENT_STATE_IN_PROGRESS_MASK = 0x40
DEV_STS_QUIESCENT_STATE_ACHIEVED_SHIFT = 7
DEV_STS_QUIESCENT_STATE_ACHIEVED_MASK = 0x80

# --- MMIO_REG_READ, RSS_IND_ENTRY_UPDATE, PHC_DB ---------------------------------------------------------------
MMIO_REG_READ_REQ_ID_MASK = 0xFFFF
MMIO_REG_READ_REG_OFF_SHIFT = 16
MMIO_REG_READ_REG_OFF_MASK = 0xFFFF0000
RSS_IND_ENTRY_UPDATE_INDEX_MASK = 0xFFFF
RSS_IND_ENTRY_UPDATE_CQ_IDX_SHIFT = 16
RSS_IND_ENTRY_UPDATE_CQ_IDX_MASK = 0xFFFF0000
PHC_DB_REQ_ID_MASK = 0xFFFF

# --- Why a driver resets the device (DEV_CTL; the upper four bits in RESET_REASON_EXT) ------------------------
RESET_NORMAL = 0
RESET_KEEP_ALIVE_TO = 1
RESET_ADMIN_TO = 2
RESET_MISS_TX_CMPL = 3
RESET_INV_RX_REQ_ID = 4
RESET_INV_TX_REQ_ID = 5
RESET_TOO_MANY_RX_DESCS = 6
RESET_INIT_ERR = 7
RESET_DRIVER_INVALID_STATE = 8
RESET_OS_TRIGGER = 9
RESET_OS_NETDEV_WD = 10
RESET_SHUTDOWN = 11
RESET_USER_TRIGGER = 12
RESET_GENERIC = 13
RESET_MISS_INTERRUPT = 14
RESET_SUSPECTED_POLL_STARVATION = 15
RESET_RX_DESCRIPTOR_MALFORMED = 16
RESET_TX_DESCRIPTOR_MALFORMED = 17
RESET_MISSING_ADMIN_INTERRUPT = 18
RESET_DEVICE_REQUEST = 19
RESET_MISS_FIRST_INTERRUPT = 20

RESET_REASONS = {
    RESET_NORMAL: "normal",
    RESET_KEEP_ALIVE_TO: "keep-alive lost",
    RESET_ADMIN_TO: "admin command timed out",
    RESET_MISS_TX_CMPL: "transmit completion missing",
    RESET_INV_RX_REQ_ID: "invalid receive request ID",
    RESET_INV_TX_REQ_ID: "invalid transmit request ID",
    RESET_TOO_MANY_RX_DESCS: "too many receive descriptors",
    RESET_INIT_ERR: "initialization failed",
    RESET_DRIVER_INVALID_STATE: "driver in an invalid state",
    RESET_OS_TRIGGER: "asked for by the operating system",
    RESET_OS_NETDEV_WD: "transmit timeout of the operating system",
    RESET_SHUTDOWN: "shutdown",
    RESET_USER_TRIGGER: "asked for by the user",
    RESET_GENERIC: "generic",
    RESET_MISS_INTERRUPT: "interrupt missing",
    RESET_SUSPECTED_POLL_STARVATION: "polling seems starved",
    RESET_RX_DESCRIPTOR_MALFORMED: "malformed receive descriptor",
    RESET_TX_DESCRIPTOR_MALFORMED: "malformed transmit descriptor",
    RESET_MISSING_ADMIN_INTERRUPT: "admin interrupt missing",
    RESET_DEVICE_REQUEST: "asked for by the device",
    RESET_MISS_FIRST_INTERRUPT: "first interrupt missing",
}

REGISTERS: tuple[Register, ...] = (
    Register("VERSION", VERSION, 0, 1, "RO", "version of the device interface"),
    Register("CONTROLLER_VERSION", CONTROLLER_VERSION, 0, 1, "RO", "version of the controller"),
    Register("CAPS", CAPS, 0, 1, "RO", "address width, reset and admin command timeout"),
    Register("CAPS_EXT", CAPS_EXT, 0, 1, "RO", "more capabilities"),
    Register("AQ_BASE_LO", AQ_BASE_LO, 0, 1, "WO", "admin queue address, bits 31:0"),
    Register("AQ_BASE_HI", AQ_BASE_HI, 0, 1, "WO", "admin queue address, bits 63:32"),
    Register("AQ_CAPS", AQ_CAPS, 0, 1, "WO", "admin queue depth and entry size"),
    Register("ACQ_BASE_LO", ACQ_BASE_LO, 0, 1, "WO", "admin completion queue address, bits 31:0"),
    Register("ACQ_BASE_HI", ACQ_BASE_HI, 0, 1, "WO", "admin completion queue address, bits 63:32"),
    Register("ACQ_CAPS", ACQ_CAPS, 0, 1, "WO", "admin completion queue depth and entry size"),
    Register("AQ_DB", AQ_DB, 0, 1, "WO", "admin queue doorbell: free-running tail"),
    Register("ACQ_TAIL", ACQ_TAIL, 0, 1, "RO", "admin completions posted, free-running"),
    Register("AENQ_CAPS", AENQ_CAPS, 0, 1, "WO", "event queue depth and entry size"),
    Register("AENQ_BASE_LO", AENQ_BASE_LO, 0, 1, "WO", "event queue address, bits 31:0"),
    Register("AENQ_BASE_HI", AENQ_BASE_HI, 0, 1, "WO", "event queue address, bits 63:32"),
    Register("AENQ_HEAD_DB", AENQ_HEAD_DB, 0, 1, "WO", "events that the device may post, free-running"),
    Register("AENQ_TAIL", AENQ_TAIL, 0, 1, "RO", "events posted, free-running"),
    Register("INTR_MASK", INTR_MASK, 0, 1, "RW", "masks the interrupt of admin completions and events"),
    Register("DEV_CTL", DEV_CTL, 0, 1, "WO", "device reset and its reason"),
    Register("DEV_STS", DEV_STS, 0, 1, "RO", "device status"),
    Register("MMIO_REG_READ", MMIO_REG_READ, 0, 1, "WO", "asks for a register's value by DMA"),
    Register("MMIO_RESP_LO", MMIO_RESP_LO, 0, 1, "WO", "where the value goes, bits 31:0"),
    Register("MMIO_RESP_HI", MMIO_RESP_HI, 0, 1, "WO", "where the value goes, bits 63:32"),
    Register(
        "RSS_IND_ENTRY_UPDATE", RSS_IND_ENTRY_UPDATE, 0, 1, "WO", "changes one entry of the indirection table"
    ),
    Register("PHC_DB", PHC_DB, 0, 1, "WO", "asks for the time by DMA"),
)

_BY_OFFSET = by_offset(REGISTERS)


def decode(offset: int) -> tuple[str, int] | None:
    """The register at exactly this byte offset as (name, 0), or None where there is none."""
    return _BY_OFFSET.get(offset)
