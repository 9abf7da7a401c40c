"""Messages between an 82599 VF and its PF: up to 16 dwords in VFMBMEM, handed over through VFMAILBOX.

Word 0 of every message, request and answer alike:

    31 ACK   30 NACK   29 CTS   28 … 24 -   23 information 16   15 message type 0

The answer repeats the type with ACK or NACK set, and CTS once the VF has been reset through the mailbox.
All words are little-endian; a MAC address fills words 1 and 2 byte by byte, in the order it has on the wire.
Sources: Linux ixgbe_mbx.h and ixgbe_sriov.c (the PF), ixgbevf mbx.h and vf.c (the VF); DPDK base/ixgbe_mbx.h;
API 1.6 and 1.7 from the Linux patches of October 2025 that brought them ("ixgbe: handle …" by J. Jagielski).
"""

WORDS = 16  # dwords of VFMBMEM: the longest message

# --- Word 0 -------------------------------------------------------------------------------------------------
MSGTYPE_ACK = 1 << 31  # newer headers say SUCCESS
MSGTYPE_NACK = 1 << 30  # newer headers say FAILURE
MSGTYPE_CTS = 1 << 29  # clear to send: the VF may ask for more than a reset
MSGTYPE_MASK = 0x0000FFFF
MSGINFO_SHIFT = 16
MSGINFO_MASK = 0x00FF0000

# --- API versions, by the number that stands in word 1 of VF_API_NEGOTIATE ----------------------------------
API_10 = 0  # before any negotiation, and after each reset
API_20 = 1  # another line of drivers
API_11 = 2
API_12 = 3
API_13 = 4
API_14 = 5  # IPsec
API_15 = 6  # a different hand-over, for one hypervisor's PF
API_16 = 7
API_17 = 8
API_UNKNOWN = 9
API_NAMES = ("1.0", "2.0", "1.1", "1.2", "1.3", "1.4", "1.5", "1.6", "1.7")  # by number

# --- Requests of the VF: message types ----------------------------------------------------------------------
VF_RESET = 0x01  # 1 word
VF_SET_MAC_ADDR = 0x02  # words 1-2: MAC
VF_SET_MULTICAST = 0x03  # information: number of hashes; two hashes a word from word 1 on
VF_SET_VLAN = 0x04  # information: 1 add, 0 remove; word 1: VLAN ID
VF_SET_LPE = 0x05  # word 1: longest frame in bytes, with the FCS
VF_SET_MACVLAN = 0x06  # information: 0 clear all, 1 first of a new list, more: one more; words 1-2: MAC
VF_API_NEGOTIATE = 0x08  # word 1: API version
VF_GET_QUEUES = 0x09  # API 1.1
VF_GET_RETA = 0x0A  # API 1.2
VF_GET_RSS_KEY = 0x0B  # API 1.2
VF_UPDATE_XCAST_MODE = 0x0C  # API 1.2; word 1: mode asked for, in the answer mode granted
VF_IPSEC_ADD = 0x0D  # API 1.4
VF_IPSEC_DEL = 0x0E  # API 1.4
VF_GET_LINK_STATE = 0x10  # API 1.2; answer word 1: 1 when the PF lets the VF have a link
VF_GET_PF_LINK_STATE = 0x11  # API 1.6; answer word 1: speed, word 2: up. For a later chip: an 82599 refuses
VF_FEATURES_NEGOTIATE = 0x12  # API 1.7; word 1: features asked for, in the answer features granted

# --- Of the PF, unasked -------------------------------------------------------------------------------------
PF_CONTROL_MSG = 0x0100  # look again: link change with CTS, reset without

MESSAGE_NAMES = {
    VF_RESET: "VF_RESET",
    VF_SET_MAC_ADDR: "VF_SET_MAC_ADDR",
    VF_SET_MULTICAST: "VF_SET_MULTICAST",
    VF_SET_VLAN: "VF_SET_VLAN",
    VF_SET_LPE: "VF_SET_LPE",
    VF_SET_MACVLAN: "VF_SET_MACVLAN",
    VF_API_NEGOTIATE: "VF_API_NEGOTIATE",
    VF_GET_QUEUES: "VF_GET_QUEUES",
    VF_GET_RETA: "VF_GET_RETA",
    VF_GET_RSS_KEY: "VF_GET_RSS_KEY",
    VF_UPDATE_XCAST_MODE: "VF_UPDATE_XCAST_MODE",
    VF_IPSEC_ADD: "VF_IPSEC_ADD",
    VF_IPSEC_DEL: "VF_IPSEC_DEL",
    VF_GET_LINK_STATE: "VF_GET_LINK_STATE",
    VF_GET_PF_LINK_STATE: "VF_GET_PF_LINK_STATE",
    VF_FEATURES_NEGOTIATE: "VF_FEATURES_NEGOTIATE",
    PF_CONTROL_MSG: "PF_CONTROL_MSG",
}

# --- VF_RESET: the answer (ACK: the PF has set a MAC; NACK: it has none, the VF shall make one up) ----------
PERMADDR_MSG_WORDS = 4
PERMADDR_MAC_WORD = 1
MC_TYPE_WORD = 3  # which 12 bits of a multicast address make its hash

# --- VF_SET_MAC_ADDR, VF_SET_MACVLAN ------------------------------------------------------------------------
MAC_WORD = 1
MAC_BYTES = 6

# --- VF_SET_MULTICAST ---------------------------------------------------------------------------------------
MULTICAST_HASH_WORD = 1
MULTICAST_HASHES_MAX = 30
MULTICAST_HASH_MASK = 0x0FFF
MC_TYPE_47_36 = 0  # bits 47:36 of the address: byte 4 >> 4 | byte 5 << 4
MC_TYPE_46_35 = 1  # byte 4 >> 3 | byte 5 << 5
MC_TYPE_45_34 = 2  # byte 4 >> 2 | byte 5 << 6
MC_TYPE_43_32 = 3  # byte 4 | byte 5 << 8

# --- VF_SET_VLAN --------------------------------------------------------------------------------------------
VLAN_WORD = 1
VLAN_ID_MASK = 0x0FFF

# --- VF_SET_LPE ---------------------------------------------------------------------------------------------
LPE_WORD = 1
MAX_JUMBO_FRAME_SIZE = 9728  # bytes, with header and FCS: an MTU of 9,710
MAX_LEGACY_FRAME_SIZE = 1518  # bytes, with header and FCS: an MTU of 1,500

# --- VF_GET_QUEUES: words of the answer ---------------------------------------------------------------------
TX_QUEUES_WORD = 1
RX_QUEUES_WORD = 2
TRANS_VLAN_WORD = 3  # not 0: the PF inserts and hides a VLAN (1), or there are traffic classes (their number)
DEF_QUEUE_WORD = 4
GET_QUEUES_WORDS = 5

# --- VF_GET_RETA, VF_GET_RSS_KEY ----------------------------------------------------------------------------
RETA_ENTRIES = 128
RETA_ENTRY_BITS = 2  # 16 entries a word: an 82599 VF has up to 4 queues
RETA_WORD = 1
RETA_WORDS = 8
RSS_KEY_BYTES = 40
RSS_KEY_WORD = 1
RSS_KEY_WORDS = 10

# --- VF_UPDATE_XCAST_MODE -----------------------------------------------------------------------------------
XCAST_WORD = 1
XCAST_MODE_NONE = 0  # unicast to it, and broadcast
XCAST_MODE_MULTI = 1  # and the multicast it has asked for: the most that an untrusted VF is given
XCAST_MODE_ALLMULTI = 2
XCAST_MODE_PROMISC = 3  # API 1.3; an 82599 cannot and refuses

# --- VF_GET_LINK_STATE, VF_GET_PF_LINK_STATE ----------------------------------------------------------------
LINK_STATE_WORD = 1
PF_LINK_SPEED_WORD = 1
PF_LINK_UP_WORD = 2
LINK_SPEED_UNKNOWN = 0
LINK_SPEED_100_FULL = 0x0008
LINK_SPEED_1GB_FULL = 0x0020
LINK_SPEED_10GB_FULL = 0x0080

# --- VF_FEATURES_NEGOTIATE ----------------------------------------------------------------------------------
FEATURES_WORD = 1
FEATURE_IPSEC = 1 << 0
FEATURE_ESX_MBX = 1 << 1


def describe(word: int) -> str:
    """Word 0 of a message in words: its type by name, and ACK, NACK, CTS where they are set."""
    name = MESSAGE_NAMES.get(word & MSGTYPE_MASK, f"type {word & MSGTYPE_MASK:#06x}")
    flags = (("ACK", MSGTYPE_ACK), ("NACK", MSGTYPE_NACK), ("CTS", MSGTYPE_CTS))
    return " ".join([name, *(flag for flag, mask in flags if word & mask)])
