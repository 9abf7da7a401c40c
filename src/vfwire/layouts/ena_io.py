"""The ENA's I/O descriptors: transmit (data, meta), receive, and their completions. Little-endian.

Names are those of the vendor's headers without ENA_ETH_IO_; a mask or shift counts within its own dword (or
byte, where the header has one), and each structure's words stand here by their byte offset.
Sources: amzn-drivers `ena_eth_io_defs.h`; DPDK `drivers/net/ena/base/ena_defs/ena_eth_io_defs.h`.

Transmit, 16 bytes. A packet is an optional meta descriptor, then one data descriptor for each buffer:

    data  len_ctrl             31     - 28 comp 27 last 26 first 24 phase 23 meta=0  21 ID high 16 15 length 0
          meta_ctrl            31 ID low 22     17 partial 14 L4 sum 13 L3 sum 12 L4 8 7 TSO 4 DF 3  L3      0
          buff_addr_lo         31                                address                                     0
          buff_addr_hi_hdr_sz  31 header 24                                      15     address 47:32        0
    meta  len_ctrl             as above, 23 meta=1 21 store 20 type 19 MSS high 16 14 valid
          word2                31 MSS low 22 21 L4 words 16 15 L3 offset 8 7 L3 length 0

Receive, 16 bytes (length 2, flags 1, control 1, ID 2, - 2, address 4 + 2, - 2). Completions: transmit 8 bytes,
receive 16 bytes. The phase bit of an entry is the ring's for this lap: a ring starts with 1 and flips at each
wrap. In a low-latency queue, descriptors and headers lie in the device's memory, in entries of 128 or 256 bytes.
"""

# --- Sizes and words: byte offsets ----------------------------------------------------------------------------
TX_DESC_BYTES = 16
TX_DESC_LEN_CTRL = 0
TX_DESC_META_CTRL = 4
TX_DESC_BUFF_ADDR_LO = 8
TX_DESC_BUFF_ADDR_HI_HDR_SZ = 12
TX_META_DESC_LEN_CTRL = 0
TX_META_DESC_WORD1 = 4
TX_META_DESC_WORD2 = 8
TX_META_DESC_RESERVED = 12
TX_CDESC_BYTES = 8
TX_CDESC_REQ_ID = 0
TX_CDESC_STATUS = 2
TX_CDESC_FLAGS = 3
TX_CDESC_SUB_QID = 4
TX_CDESC_SQ_HEAD_IDX = 6
RX_DESC_BYTES = 16
RX_DESC_LENGTH = 0
RX_DESC_RESERVED2 = 2
RX_DESC_CTRL = 3
RX_DESC_REQ_ID = 4
RX_DESC_RESERVED6 = 6
RX_DESC_BUFF_ADDR_LO = 8
RX_DESC_BUFF_ADDR_HI = 12
RX_DESC_RESERVED16_W3 = 14
RX_CDESC_BASE_BYTES = 16
RX_CDESC_BASE_STATUS = 0
RX_CDESC_BASE_LENGTH = 4
RX_CDESC_BASE_REQ_ID = 6
RX_CDESC_BASE_HASH = 8
RX_CDESC_BASE_SUB_QID = 12
RX_CDESC_BASE_OFFSET = 14
RX_CDESC_BASE_RESERVED = 15
RX_LENGTH_0_MEANS = 65536  # bytes: length 0 of a receive descriptor

# --- Protocols ------------------------------------------------------------------------------------------------
L3_PROTO_UNKNOWN = 0
L3_PROTO_IPV4 = 8
L3_PROTO_IPV6 = 11
L3_PROTO_FCOE = 21
L3_PROTO_ROCE = 22
L4_PROTO_UNKNOWN = 0
L4_PROTO_TCP = 12
L4_PROTO_UDP = 13
L4_PROTO_ROUTEABLE_ROCE = 23

# --- Transmit data descriptor ---------------------------------------------------------------------------------
TX_DESC_LENGTH_MASK = 0xFFFF
TX_DESC_REQ_ID_HI_SHIFT = 16  # request ID[15:10]
TX_DESC_REQ_ID_HI_MASK = 0x3F0000
TX_DESC_META_DESC_SHIFT = 23
TX_DESC_META_DESC_MASK = 1 << 23
TX_DESC_PHASE_SHIFT = 24
TX_DESC_PHASE_MASK = 1 << 24
TX_DESC_FIRST_SHIFT = 26
TX_DESC_FIRST_MASK = 1 << 26
TX_DESC_LAST_SHIFT = 27
TX_DESC_LAST_MASK = 1 << 27
TX_DESC_COMP_REQ_SHIFT = 28
TX_DESC_COMP_REQ_MASK = 1 << 28
TX_DESC_L3_PROTO_IDX_MASK = 0xF
TX_DESC_DF_SHIFT = 4
TX_DESC_DF_MASK = 1 << 4
TX_DESC_TSO_EN_SHIFT = 7
TX_DESC_TSO_EN_MASK = 1 << 7
TX_DESC_L4_PROTO_IDX_SHIFT = 8
TX_DESC_L4_PROTO_IDX_MASK = 0x1F00
TX_DESC_L3_CSUM_EN_SHIFT = 13
TX_DESC_L3_CSUM_EN_MASK = 1 << 13
TX_DESC_L4_CSUM_EN_SHIFT = 14
TX_DESC_L4_CSUM_EN_MASK = 1 << 14
TX_DESC_ETHERNET_FCS_DIS_SHIFT = 15
TX_DESC_ETHERNET_FCS_DIS_MASK = 1 << 15
TX_DESC_L4_CSUM_PARTIAL_SHIFT = 17  # the pseudo-header's sum is in the packet already
TX_DESC_L4_CSUM_PARTIAL_MASK = 1 << 17
TX_DESC_REQ_ID_LO_SHIFT = 22  # request ID[9:0]
TX_DESC_REQ_ID_LO_MASK = 0xFFC00000
TX_DESC_ADDR_HI_MASK = 0xFFFF
TX_DESC_HEADER_LENGTH_SHIFT = 24
TX_DESC_HEADER_LENGTH_MASK = 0xFF000000

# --- Transmit meta descriptor ---------------------------------------------------------------------------------
TX_META_DESC_EXT_VALID_SHIFT = 14
TX_META_DESC_EXT_VALID_MASK = 1 << 14
TX_META_DESC_MSS_HI_SHIFT = 16
TX_META_DESC_MSS_HI_MASK = 0xF0000
TX_META_DESC_ETH_META_TYPE_SHIFT = 20
TX_META_DESC_ETH_META_TYPE_MASK = 1 << 20
TX_META_DESC_META_STORE_SHIFT = 21  # the queue keeps these offsets for packets without a meta descriptor
TX_META_DESC_META_STORE_MASK = 1 << 21
TX_META_DESC_META_DESC_SHIFT = 23
TX_META_DESC_META_DESC_MASK = 1 << 23
TX_META_DESC_PHASE_SHIFT = 24
TX_META_DESC_PHASE_MASK = 1 << 24
TX_META_DESC_FIRST_SHIFT = 26
TX_META_DESC_FIRST_MASK = 1 << 26
TX_META_DESC_LAST_SHIFT = 27
TX_META_DESC_LAST_MASK = 1 << 27
TX_META_DESC_COMP_REQ_SHIFT = 28
TX_META_DESC_COMP_REQ_MASK = 1 << 28
TX_META_DESC_L3_HDR_LEN_MASK = 0xFF
TX_META_DESC_L3_HDR_OFF_SHIFT = 8
TX_META_DESC_L3_HDR_OFF_MASK = 0xFF00
TX_META_DESC_L4_HDR_LEN_IN_WORDS_SHIFT = 16
TX_META_DESC_L4_HDR_LEN_IN_WORDS_MASK = 0x3F0000
TX_META_DESC_MSS_LO_SHIFT = 22
TX_META_DESC_MSS_LO_MASK = 0xFFC00000
MSS_LO_BITS = 10  # MSS_HI's four lie above them

# --- Transmit completion: bits of `flags` ---------------------------------------------------------------------
TX_CDESC_PHASE_MASK = 0x1
TX_CDESC_MBZ6_SHIFT = 6
TX_CDESC_MBZ6_MASK = 0xC0

# --- Receive descriptor: bits of `ctrl` -----------------------------------------------------------------------
RX_DESC_PHASE_MASK = 0x1
RX_DESC_FIRST_SHIFT = 2
RX_DESC_FIRST_MASK = 0x4
RX_DESC_LAST_SHIFT = 3
RX_DESC_LAST_MASK = 0x8
RX_DESC_COMP_REQ_SHIFT = 4
RX_DESC_COMP_REQ_MASK = 0x10

# --- Receive completion: bits of `status`; protocols and checksums hold where LAST is set ----------------------
RX_CDESC_BASE_L3_PROTO_IDX_MASK = 0x1F
RX_CDESC_BASE_SRC_VLAN_CNT_SHIFT = 5
RX_CDESC_BASE_SRC_VLAN_CNT_MASK = 0x60
RX_CDESC_BASE_MBZ7_SHIFT = 7
RX_CDESC_BASE_MBZ7_MASK = 1 << 7
RX_CDESC_BASE_L4_PROTO_IDX_SHIFT = 8
RX_CDESC_BASE_L4_PROTO_IDX_MASK = 0x1F00
RX_CDESC_BASE_L3_CSUM_ERR_SHIFT = 13
RX_CDESC_BASE_L3_CSUM_ERR_MASK = 1 << 13
RX_CDESC_BASE_L4_CSUM_ERR_SHIFT = 14
RX_CDESC_BASE_L4_CSUM_ERR_MASK = 1 << 14
RX_CDESC_BASE_IPV4_FRAG_SHIFT = 15
RX_CDESC_BASE_IPV4_FRAG_MASK = 1 << 15
RX_CDESC_BASE_L4_CSUM_CHECKED_SHIFT = 16
RX_CDESC_BASE_L4_CSUM_CHECKED_MASK = 1 << 16
RX_CDESC_BASE_MBZ17_SHIFT = 17
RX_CDESC_BASE_MBZ17_MASK = 1 << 17
RX_CDESC_BASE_PHASE_SHIFT = 24
RX_CDESC_BASE_PHASE_MASK = 1 << 24
RX_CDESC_BASE_L3_CSUM2_SHIFT = 25
RX_CDESC_BASE_L3_CSUM2_MASK = 1 << 25
RX_CDESC_BASE_FIRST_SHIFT = 26
RX_CDESC_BASE_FIRST_MASK = 1 << 26
RX_CDESC_BASE_LAST_SHIFT = 27
RX_CDESC_BASE_LAST_MASK = 1 << 27
RX_CDESC_BASE_BUFFER_SHIFT = 30
RX_CDESC_BASE_BUFFER_MASK = 1 << 30

# --- Interrupt register of a completion queue (BAR0): delays in units that the device names -------------------
INTR_REG_RX_INTR_DELAY_MASK = 0x7FFF
INTR_REG_TX_INTR_DELAY_SHIFT = 15
INTR_REG_TX_INTR_DELAY_MASK = 0x3FFF8000
INTR_REG_INTR_UNMASK_SHIFT = 30
INTR_REG_INTR_UNMASK_MASK = 1 << 30
INTR_REG_NO_MODERATION_UPDATE_SHIFT = 31
INTR_REG_NO_MODERATION_UPDATE_MASK = 1 << 31
NUMA_NODE_CFG_REG_NUMA_MASK = 0xFF
NUMA_NODE_CFG_REG_ENABLED_SHIFT = 31
NUMA_NODE_CFG_REG_ENABLED_MASK = 1 << 31
