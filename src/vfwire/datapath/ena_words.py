"""The ENA's descriptors as whole 64-bit words: what each field is worth in the word that both sides read and write.

qword0 is bytes 0-7, qword1 bytes 8-15 (layouts/ena_io.py has the fields within their own dwords). A transmit
descriptor and a completion are handed over by qword0, which has the phase: it is written last and read first.
"""

from vfwire.layouts import ena_io as io
from vfwire.memory.compiled import inlined

DESCRIPTOR_BYTES = io.TX_DESC_BYTES  # of both directions
assert io.RX_DESC_BYTES == DESCRIPTOR_BYTES
ADDRESS_MASK = (1 << 48) - 1
LENGTH_MASK = 0xFFFF

# Transmit, qword0: len_ctrl | meta_ctrl << 32.
TX_META = io.TX_DESC_META_DESC_MASK
TX_FIRST = io.TX_DESC_FIRST_MASK
TX_LAST = io.TX_DESC_LAST_MASK
TX_COMPLETE = io.TX_DESC_COMP_REQ_MASK
TX_PHASE_SHIFT = io.TX_DESC_PHASE_SHIFT
TX_PHASE = io.TX_DESC_PHASE_MASK
TX_L3_SHIFT = 32
TX_L4_SHIFT = 32 + io.TX_DESC_L4_PROTO_IDX_SHIFT
TX_DF = io.TX_DESC_DF_MASK << 32
TX_TSO = io.TX_DESC_TSO_EN_MASK << 32
TX_L3_SUM = io.TX_DESC_L3_CSUM_EN_MASK << 32
TX_L4_SUM = io.TX_DESC_L4_CSUM_EN_MASK << 32
TX_L4_PARTIAL = io.TX_DESC_L4_CSUM_PARTIAL_MASK << 32
TX_ID_LOW_SHIFT = 32 + io.TX_DESC_REQ_ID_LO_SHIFT
TX_ID_LOW_BITS = 10
TX_ID_HIGH_SHIFT = io.TX_DESC_REQ_ID_HI_SHIFT
TX_OFFLOADS = TX_TSO | TX_L3_SUM | TX_L4_SUM
# Transmit, qword1: address | header length << 56.
TX_HEADER_SHIFT = 56

# Meta descriptor, qword0 (bits as above, and:), and qword1 (word2).
META_VALID = io.TX_META_DESC_EXT_VALID_MASK
META_MSS_HIGH_SHIFT = io.TX_META_DESC_MSS_HI_SHIFT
META_TYPE = io.TX_META_DESC_ETH_META_TYPE_MASK
META_STORE = io.TX_META_DESC_META_STORE_MASK
META_L3_OFFSET_SHIFT = io.TX_META_DESC_L3_HDR_OFF_SHIFT
META_L4_WORDS_SHIFT = io.TX_META_DESC_L4_HDR_LEN_IN_WORDS_SHIFT
META_MSS_LOW_SHIFT = io.TX_META_DESC_MSS_LO_SHIFT
META_MSS_LOW_BITS = io.MSS_LO_BITS

# Transmit completion: one qword.
TXC_PHASE_SHIFT = 24
TXC_QUEUE_SHIFT = 32
TXC_HEAD_SHIFT = 48

# Receive, qword0: length | control << 24 | request ID << 32; qword1: address.
RX_CONTROL_SHIFT = 24
RX_ID_SHIFT = 32
RX_PHASE = io.RX_DESC_PHASE_MASK << RX_CONTROL_SHIFT
RX_OFFER = (io.RX_DESC_FIRST_MASK | io.RX_DESC_LAST_MASK | io.RX_DESC_COMP_REQ_MASK) << RX_CONTROL_SHIFT
RX_WHOLE = io.RX_LENGTH_0_MEANS

# Receive completion, qword0: status | length << 32 | request ID << 48; qword1: hash | queue << 32 | offset << 48.
RXC_PHASE_SHIFT = io.RX_CDESC_BASE_PHASE_SHIFT
RXC_FIRST = io.RX_CDESC_BASE_FIRST_MASK
RXC_LAST = io.RX_CDESC_BASE_LAST_MASK
RXC_BUFFER = io.RX_CDESC_BASE_BUFFER_MASK
RXC_L3_MASK = io.RX_CDESC_BASE_L3_PROTO_IDX_MASK
RXC_L4_SHIFT = io.RX_CDESC_BASE_L4_PROTO_IDX_SHIFT
RXC_L3_BAD = io.RX_CDESC_BASE_L3_CSUM_ERR_MASK
RXC_L4_BAD = io.RX_CDESC_BASE_L4_CSUM_ERR_MASK
RXC_FRAGMENT = io.RX_CDESC_BASE_IPV4_FRAG_MASK
RXC_L4_CHECKED = io.RX_CDESC_BASE_L4_CSUM_CHECKED_MASK
RXC_LENGTH_SHIFT = 32
RXC_ID_SHIFT = 48
RXC_QUEUE_SHIFT = 32
RXC_OFFSET_SHIFT = 48


@inlined
def phase_of(count, size):  # type: ignore[no-untyped-def]
    """The phase bit of entry `count` (counted freely from 0) of a ring of `size` entries: 1 in the first lap."""
    return 1 if count & size == 0 else 0


@inlined
def id_bits(request):  # type: ignore[no-untyped-def]
    """A request ID (16 bits) where it lies in qword0 of a transmit descriptor."""
    low = (request & ((1 << TX_ID_LOW_BITS) - 1)) << TX_ID_LOW_SHIFT
    return low | (request >> TX_ID_LOW_BITS) << TX_ID_HIGH_SHIFT


@inlined
def request_id(word0):  # type: ignore[no-untyped-def]
    """The request ID of a transmit descriptor."""
    low = (word0 >> TX_ID_LOW_SHIFT) & ((1 << TX_ID_LOW_BITS) - 1)
    return low | ((word0 >> TX_ID_HIGH_SHIFT) & 0x3F) << TX_ID_LOW_BITS
