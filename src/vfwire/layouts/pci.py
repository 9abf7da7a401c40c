"""PCI configuration space: offsets and bits, named as Linux `include/uapi/linux/pci_regs.h` has them.

All offsets are bytes, all registers little-endian, all names without "PCI_". A capability's registers count
from its start.
Meanings: PCI Local Bus 3.0 chapter 6 (header, MSI-X), PCI Express Base chapter 7, SR-IOV 1.1 chapter 3.

    0x00  vendor        device        command       status            header, type 0, 64 bytes
    0x08  revision, class code (3)    cache line, latency, header type, BIST
    0x10  BAR 0 … BAR 5
    0x28  CardBus CIS, subsystem vendor and ID, ROM, capability list
    0x3c  interrupt line and pin, min grant, max latency
    0x40  capabilities: each an ID byte, the next one's offset, its registers
    0x100 extended capabilities: 16 bits of ID, 4 of version, 12 of the next one's offset
"""

CFG_SPACE_SIZE = 256
CFG_SPACE_EXP_SIZE = 4096
STD_HEADER_SIZEOF = 64
STD_NUM_BARS = 6

# --- Header, type 0 -----------------------------------------------------------------------------------------
VENDOR_ID = 0x00
DEVICE_ID = 0x02
COMMAND = 0x04
STATUS = 0x06
CLASS_REVISION = 0x08
REVISION_ID = 0x08
CLASS_PROG = 0x09
CLASS_DEVICE = 0x0A
CACHE_LINE_SIZE = 0x0C
LATENCY_TIMER = 0x0D
HEADER_TYPE = 0x0E
BIST = 0x0F
BASE_ADDRESS_0 = 0x10
BASE_ADDRESS_1 = 0x14
BASE_ADDRESS_2 = 0x18
BASE_ADDRESS_3 = 0x1C
BASE_ADDRESS_4 = 0x20
BASE_ADDRESS_5 = 0x24
CARDBUS_CIS = 0x28
SUBSYSTEM_VENDOR_ID = 0x2C
SUBSYSTEM_ID = 0x2E
ROM_ADDRESS = 0x30
CAPABILITY_LIST = 0x34
INTERRUPT_LINE = 0x3C
INTERRUPT_PIN = 0x3D
MIN_GNT = 0x3E
MAX_LAT = 0x3F

# --- COMMAND ------------------------------------------------------------------------------------------------
COMMAND_IO = 0x1
COMMAND_MEMORY = 0x2
COMMAND_MASTER = 0x4
COMMAND_SPECIAL = 0x8
COMMAND_INVALIDATE = 0x10
COMMAND_VGA_PALETTE = 0x20
COMMAND_PARITY = 0x40
COMMAND_WAIT = 0x80
COMMAND_SERR = 0x100
COMMAND_FAST_BACK = 0x200
COMMAND_INTX_DISABLE = 0x400

# --- STATUS -------------------------------------------------------------------------------------------------
STATUS_INTERRUPT = 0x08
STATUS_CAP_LIST = 0x10
STATUS_66MHZ = 0x20
STATUS_FAST_BACK = 0x80
STATUS_PARITY = 0x100
STATUS_DEVSEL_MASK = 0x600
STATUS_SIG_TARGET_ABORT = 0x800
STATUS_REC_TARGET_ABORT = 0x1000
STATUS_REC_MASTER_ABORT = 0x2000
STATUS_SIG_SYSTEM_ERROR = 0x4000
STATUS_DETECTED_PARITY = 0x8000

# --- HEADER_TYPE, BASE_ADDRESS_n ----------------------------------------------------------------------------
HEADER_TYPE_NORMAL = 0
HEADER_TYPE_MFD = 0x80
BASE_ADDRESS_SPACE = 0x01
BASE_ADDRESS_SPACE_IO = 0x01
BASE_ADDRESS_SPACE_MEMORY = 0x00
BASE_ADDRESS_MEM_TYPE_MASK = 0x06
BASE_ADDRESS_MEM_TYPE_32 = 0x00
BASE_ADDRESS_MEM_TYPE_64 = 0x04
BASE_ADDRESS_MEM_PREFETCH = 0x08

# --- Classes (pci_ids.h: base class and sub-class) ----------------------------------------------------------
CLASS_NETWORK_ETHERNET = 0x0200

# --- Capabilities -------------------------------------------------------------------------------------------
CAP_LIST_ID = 0
CAP_LIST_NEXT = 1
CAP_FLAGS = 2
CAP_SIZEOF = 4
CAP_ID_PM = 0x01
CAP_ID_VPD = 0x03
CAP_ID_MSI = 0x05
CAP_ID_VNDR = 0x09
CAP_ID_EXP = 0x10
CAP_ID_MSIX = 0x11

# --- MSI-X capability ---------------------------------------------------------------------------------------
MSIX_FLAGS = 2
MSIX_FLAGS_QSIZE = 0x07FF  # vectors - 1
MSIX_FLAGS_MASKALL = 0x4000
MSIX_FLAGS_ENABLE = 0x8000
MSIX_TABLE = 4
MSIX_TABLE_BIR = 0x00000007
MSIX_TABLE_OFFSET = 0xFFFFFFF8
MSIX_PBA = 8
MSIX_PBA_BIR = 0x00000007
MSIX_PBA_OFFSET = 0xFFFFFFF8
CAP_MSIX_SIZEOF = 12

# --- MSI-X table entry --------------------------------------------------------------------------------------
MSIX_ENTRY_SIZE = 16
MSIX_ENTRY_LOWER_ADDR = 0x0
MSIX_ENTRY_UPPER_ADDR = 0x4
MSIX_ENTRY_DATA = 0x8
MSIX_ENTRY_VECTOR_CTRL = 0xC
MSIX_ENTRY_CTRL_MASKBIT = 0x1

# --- PCI Express capability ---------------------------------------------------------------------------------
EXP_FLAGS = 0x02
EXP_FLAGS_VERS = 0x000F
EXP_FLAGS_TYPE = 0x00F0
EXP_TYPE_ENDPOINT = 0x0  # of EXP_FLAGS_TYPE, shifted down by 4
EXP_FLAGS_IRQ = 0x3E00
EXP_DEVCAP = 0x04
EXP_DEVCAP_PAYLOAD = 0x00000007
EXP_DEVCAP_PHANTOM = 0x00000018
EXP_DEVCAP_EXT_TAG = 0x00000020
EXP_DEVCAP_L0S = 0x000001C0
EXP_DEVCAP_L1 = 0x00000E00
EXP_DEVCAP_RBER = 0x00008000
EXP_DEVCAP_FLR = 0x10000000
EXP_DEVCTL = 0x08
EXP_DEVCTL_CERE = 0x0001
EXP_DEVCTL_NFERE = 0x0002
EXP_DEVCTL_FERE = 0x0004
EXP_DEVCTL_URRE = 0x0008
EXP_DEVCTL_RELAX_EN = 0x0010
EXP_DEVCTL_PAYLOAD = 0x00E0
EXP_DEVCTL_EXT_TAG = 0x0100
EXP_DEVCTL_PHANTOM = 0x0200
EXP_DEVCTL_AUX_PME = 0x0400
EXP_DEVCTL_NOSNOOP_EN = 0x0800
EXP_DEVCTL_READRQ = 0x7000
EXP_DEVCTL_READRQ_512B = 0x2000
EXP_DEVCTL_BCR_FLR = 0x8000  # an endpoint that is written 1 here resets its function; it reads 0
EXP_DEVSTA = 0x0A
EXP_DEVSTA_CED = 0x0001
EXP_DEVSTA_NFED = 0x0002
EXP_DEVSTA_FED = 0x0004
EXP_DEVSTA_URD = 0x0008
EXP_DEVSTA_AUXPD = 0x0010
EXP_DEVSTA_TRPND = 0x0020
EXP_LNKCAP = 0x0C
EXP_LNKCAP_SLS = 0x0000000F
EXP_LNKCAP_SLS_2_5GB = 0x00000001
EXP_LNKCAP_SLS_5_0GB = 0x00000002
EXP_LNKCAP_MLW = 0x000003F0
EXP_LNKCAP_ASPMS = 0x00000C00
EXP_LNKCTL = 0x10
EXP_LNKSTA = 0x12
EXP_LNKSTA_CLS = 0x000F
EXP_LNKSTA_CLS_5_0GB = 0x0002
EXP_LNKSTA_NLW = 0x03F0
EXP_LNKSTA_NLW_X8 = 0x0080
EXP_DEVCAP2 = 0x24
EXP_DEVCAP2_COMP_TMOUT_DIS = 0x00000010
EXP_DEVCTL2 = 0x28
EXP_DEVCTL2_COMP_TIMEOUT = 0x000F
EXP_DEVCTL2_COMP_TMOUT_DIS = 0x0010
EXP_LNKCAP2 = 0x2C
EXP_LNKCTL2 = 0x30
EXP_LNKSTA2 = 0x32
CAP_EXP_ENDPOINT_SIZEOF_V1 = 20
CAP_EXP_ENDPOINT_SIZEOF_V2 = 0x32
CAP_EXP_SIZEOF_V2 = 0x3C  # with the slot and root registers that an endpoint leaves zero (PCI Express 7.8)

# --- Extended capabilities ----------------------------------------------------------------------------------
EXT_CAP_START = CFG_SPACE_SIZE
EXT_CAP_VERSION_SHIFT = 16
EXT_CAP_NEXT_SHIFT = 20
EXT_CAP_ID_ERR = 0x01
EXT_CAP_ID_DSN = 0x03
EXT_CAP_ID_ARI = 0x0E
EXT_CAP_ID_SRIOV = 0x10

# --- Alternative Routing-ID capability ----------------------------------------------------------------------
ARI_CAP = 0x04
ARI_CTRL = 0x06
EXT_CAP_ARI_SIZEOF = 8

# --- SR-IOV capability (a PF's; no guest sees one) ----------------------------------------------------------
SRIOV_CAP = 0x04
SRIOV_CAP_VFM = 0x00000001
SRIOV_CTRL = 0x08
SRIOV_CTRL_VFE = 0x0001
SRIOV_CTRL_VFM = 0x0002
SRIOV_CTRL_INTR = 0x0004
SRIOV_CTRL_MSE = 0x0008
SRIOV_CTRL_ARI = 0x0010
SRIOV_STATUS = 0x0A
SRIOV_INITIAL_VF = 0x0C
SRIOV_TOTAL_VF = 0x0E
SRIOV_NUM_VF = 0x10
SRIOV_FUNC_LINK = 0x12
SRIOV_VF_OFFSET = 0x14
SRIOV_VF_STRIDE = 0x16
SRIOV_VF_DID = 0x1A
SRIOV_SUP_PGSIZE = 0x1C
SRIOV_SYS_PGSIZE = 0x20
SRIOV_BAR = 0x24
SRIOV_NUM_BARS = 6
SRIOV_VFM = 0x3C
EXT_CAP_SRIOV_SIZEOF = 0x40
