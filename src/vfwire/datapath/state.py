"""All that the card's compiled loop knows, as record arrays: the door between a device's control side and data path.

Control code (devices/) changes anything here only while the loop is parked (devices/engine.py), except the four
interrupt words of a function, which both sides change by atomic operations, and counters, which it only reads.
Watchers (idle_watch.py) read queues at any time: an address of registers, once written, can be read until they have
ended.
Functions are numbered through all cards of a process; queue q of function f is row f * queues + q of `tx` and `rx`,
vector v is row f * VECTORS + v, DMA map m is row f * MAPS + m. MAC addresses are the six bytes on the wire read as a
little-endian int. All addresses are virtual addresses of this process.
"""

from dataclasses import dataclass
from enum import IntEnum
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from vfwire.datapath.control_record import CONTROL
from vfwire.datapath.instance import CONNECTIONS, INSTANCE
from vfwire.memory.tables import Tables

MODEL_NONE = 0
MODEL_82599 = 1
MODEL_ENA = 2

QUEUES = 32  # rows kept for each function, whatever its model; how many it has is in its record
VECTORS = 33
IXGBEVF_QUEUES = 4  # the first rows, which an 82599 VF uses
IXGBEVF_VECTORS = 3
MAPS = 128  # DMA maps of one function
MAC_ROWS = 1024  # hash table rows of one card, a power of two
MULTICAST_WORDS = 64  # 4,096 hash bits as 64-bit words (82599 datasheet 8.2.3.7.7, MTA)
TOEPLITZ_ENTRIES = 36 * 256
RETA_ENTRIES = 128
NOWHERE = -1


class Drop(IntEnum):
    """Why a frame did not arrive. Counted at who is to blame: the sender, or the receiver for NO_RX_*."""

    NO_RX_DESCRIPTOR = 0
    RX_DISABLED = 1
    NO_DESTINATION = 2
    SPOOF = 3
    VLAN = 4
    LINK_DOWN = 5
    TOO_LONG = 6
    TOO_SHORT = 7
    BAD_DMA = 8
    BAD_DESCRIPTOR = 9
    CHAIN_TOO_LONG = 10
    LINK_FULL = 11
    ALLOWANCE = 12


DROP_NAMES = {
    Drop.NO_RX_DESCRIPTOR: "no receive descriptor",
    Drop.RX_DISABLED: "receiver not enabled",
    Drop.NO_DESTINATION: "no such destination",
    Drop.SPOOF: "spoof check",
    Drop.VLAN: "VLAN not allowed",
    Drop.LINK_DOWN: "link down",
    Drop.TOO_LONG: "longer than the receiver takes",
    Drop.TOO_SHORT: "shorter than an Ethernet header",
    Drop.BAD_DMA: "bad DMA address",
    Drop.BAD_DESCRIPTOR: "bad descriptor",
    Drop.CHAIN_TOO_LONG: "descriptor chain without end",
    Drop.LINK_FULL: "link to the other card's process full",
    Drop.ALLOWANCE: "over the instance's allowance",
}

CARD = np.dtype(
    [
        ("first", "i8"),  # its first function's number
        ("functions", "i8"),
        ("peer", "i8"),  # card at the other end of the link in this process, NOWHERE for none
        ("link_up", "i8"),
        ("rate_bps", "i8"),  # of the uplink; 0 when lifted
        ("credit", "i8"),  # bits x 1e9 that may still be sent
        ("credit_ns", "i8"),  # when it was last topped up
        ("short", "i8"),  # 1 when more of it would have been used in this round
        ("ring_out", "i8"),  # link to another process: address of the ring to it, 0 for none
        ("ring_in", "i8"),
        ("loopback", "i8"),  # frames that stayed on the card
        ("link_frames", "i8"),  # sent over the link
        ("link_bytes", "i8"),
        ("link_in_frames", "i8"),
        ("unknown", "i8"),  # frames from the link that nobody on this card wanted
    ],
    align=True,
)

FUNCTION = np.dtype(
    [
        ("address", "i8"),  # where this record lies, for the words in it that two threads change
        ("model", "i8"),  # MODEL_*
        ("card", "i8"),
        ("pool", "i8"),  # its bit in pool masks
        ("dma", "i8"),  # 1 while a driver has it, bus mastering is on and no fault stopped it
        ("fault", "i8"),  # Drop cause that stopped it, -1 for none
        ("pages", "i8"),  # register offset o of BAR0's queue pages is at pages + o
        ("rx_queues", "i8"),
        ("tx_queues", "i8"),
        ("causes", "i8"),  # VTEICR: atomic from here ...
        ("mask", "i8"),  # VTEIMS
        ("auto_clear", "i8"),  # VTEIAC
        ("auto_mask", "i8"),  # VTEIAM: ... to here
        ("rx_vector", "i8", (IXGBEVF_QUEUES,)),  # VTIVAR; -1 where not valid
        ("tx_vector", "i8", (IXGBEVF_QUEUES,)),
        ("pending", "i8"),  # vectors with a cause that moderation holds back
        ("mac", "i8"),
        ("port_vlan", "i8"),  # tag control information (vlan | qos << 13) set by the PF, 0 for none
        ("vlans", "i8"),  # 1 while it has VLAN filters of its own (tagged frames are checked against them)
        ("spoof_check", "i8"),
        ("link_up", "i8"),
        ("max_frame", "i8"),  # bytes without FCS that it takes (tagged frames 4 more)
        ("all_multicast", "i8"),
        ("promiscuous", "i8"),
        (
            "rss",
            "i8",
        ),  # RSS_* types (datapath/rss.py) that are hashed and spread over rx_queues; 0: one queue
        ("psrtype", "i8"),  # VFPSRTYPE: the headers after which a frame may be split
        ("rate_bps", "i8"),  # the lower of line rate and max_tx_rate; 0 when lifted
        ("credit", "i8"),
        ("credit_ns", "i8"),
        ("short", "i8"),
        ("looked_ns", "i8"),  # when its rings were last looked at, 0 for not
        ("turns", "i8"),  # that its transmit queues have still to get: of those below
        ("tx_frames", "i8"),
        ("tx_bytes", "i8"),
        ("rx_frames", "i8"),
        ("rx_bytes", "i8"),
        ("rx_multicast", "i8"),
        ("copied", "i8"),  # bytes copied into this function's guest, and between
        ("interrupts", "i8"),
        ("bad_dma", "i8"),
        ("throttled", "i8"),  # times its rate made it wait
        ("recorded", "i8"),  # RECORD_* (recorder.py): what is noted of it; 0 while nobody watches
        ("hash_init", "i8"),  # ENA: what the RSS hash starts from
        ("hash_left_out", "i8"),  # ENA: fields that are not hashed, four bits a protocol (rss.py); 0: all are
        ("posted", "i8"),  # ENA: bit mask of vectors with a completion that no interrupt has told of
        (
            "metered",
            "i8",
        ),  # 1 while allowances apply to it: row `instance`, and link-local packets of its own
        ("instance", "i8"),
        ("linklocal_pps", "i8"),  # packets a second to and from link-local services, 0 for no limit
        ("linklocal_credit", "i8"),  # packets x 1e9
        ("linklocal_exceeded", "i8"),
    ],
    align=True,
)

# An ENA queue pair's second ring, beside the fields that both models use.
_COMPLETIONS = [
    ("doorbell", "i8"),  # address of the word that the driver writes its free-running tail to
    ("completions", "i8"),  # address of the completion ring
    ("completion_size", "i8"),  # entries, a power of two
    ("completion_bytes", "i8"),  # of one entry
    ("completed", "i8"),  # entries posted so far: the next one's place and phase
    ("vector", "i8"),  # -1 for none
]

_MAP_CACHE = [("map_start", "i8"), ("map_end", "i8"), ("map_delta", "i8")]

TX_QUEUE = np.dtype(
    [
        ("on", "i8"),
        ("registers", "i8"),  # address of its register block
        ("ring_iova", "i8"),  # I/O address of the ring, as latched
        ("ring", "i8"),  # its address here
        ("size", "i8"),
        ("head", "i8"),
        *_MAP_CACHE,
        ("key0", "i8"),  # first 16 bytes of the last plain frame that passed every check ...
        ("key1", "i8"),
        ("to", "i8"),  # ... and the function it goes to
        ("head_iova", "i8"),  # where the head is written back (VFTDWBAL), 0 for DD in the descriptors instead
        ("context_vlan", "i8", (2,)),
        ("context_tucmd", "i8", (2,)),
        ("context_mss", "i8", (2,)),
        ("frames", "i8"),
        ("bytes", "i8"),
        *_COMPLETIONS,
        ("llq_bytes", "i8"),  # of one low-latency-queue entry; 0: the ring lies in the guest's memory
        ("llq_first", "i8"),  # descriptors of a frame's first entry, before its header
        ("llq_more", "i8"),  # descriptors of each entry after it
        ("meta_l2", "i8"),  # the last stored meta descriptor: where L3 begins ...
        ("meta_l3", "i8"),  # ... its bytes ...
        ("meta_l4", "i8"),  # ... those of the L4 header ...
        ("meta_mss", "i8"),  # ... and the maximum segment size
        ("held", "i8"),  # descriptors that waited for an allowance ...
        ("held_by", "i8"),  # ... and for which (HELD_BY_*, datapath/allowance.py)
    ],
    align=True,
)

RX_QUEUE = np.dtype(
    [
        ("on", "i8"),
        ("registers", "i8"),
        ("ring_iova", "i8"),
        ("ring", "i8"),
        ("size", "i8"),
        ("head", "i8"),
        ("tail", "i8"),  # as last read; ENA: up to where, counted freely, buffers had been offered then
        *_MAP_CACHE,
        ("srrctl", "i8"),  # VFSRRCTL as latched
        ("one_buffer", "i8"),  # 1 for advanced descriptors of one buffer: what the fast path knows
        ("buffer_bytes", "i8"),
        ("strip_vlan", "i8"),
        ("frames", "i8"),
        ("bytes", "i8"),
        *_COMPLETIONS,
    ],
    align=True,
)

VECTOR = np.dtype(
    [
        ("eventfd", "i8"),  # -1 for none
        ("interval_ns", "i8"),  # VTEITR, or an ENA's moderation as its driver last set it
        ("next_ns", "i8"),
        ("written", "i8"),  # 82599: VTEITR as it is read back
        ("raised", "i8"),
        (
            "unmask",
            "i8",
        ),  # ENA: address of the word that the driver asks for the next interrupt by, 0 for none
        ("armed", "i8"),  # ENA: it has asked
        ("moderation_ns", "i8"),  # ENA: of one unit of a driver's moderation, 0 while that is off
    ],
    align=True,
)

IN_HAND = np.dtype(
    [
        ("header", "i8"),  # address of the private copy of the frame's first bytes, without any 802.1Q tag
        ("header_length", "i8"),
        ("entries", "i8"),  # of the gather list
        ("offset", "i8"),  # where the rest of the frame begins in the gather list ...
        ("count", "i8"),  # ... and how many bytes it has
        ("tag", "i8"),  # 802.1Q tag control information, 0 for none
        ("good", "i8"),  # IP_GOOD and L4_GOOD (verify.py) that hold without looking, 0 to look
        ("targets", "i8"),  # entries of the target list
        ("link", "i8"),  # 1: it crosses the link
        ("asked", "i8"),  # its sender asked for offloads
        ("l2", "i8"),  # they are: bytes of each header ...
        ("l3", "i8"),
        ("l4", "i8"),
        ("mss", "i8"),  # ... the payload of each TCP segment, 0 for a frame that stays whole ...
        ("is_ipv6", "i8"),
        ("protocol", "i8"),  # ... of L4 ...
        ("fill_l3", "i8"),  # ... and the checksums to be filled in
        ("fill_l4", "i8"),
        ("seeded", "i8"),  # the L4 field holds the sum of the pseudo header already
    ],
    align=True,
)

MAP = np.dtype([("start", "i8"), ("end", "i8"), ("delta", "i8"), ("writable", "i8")], align=True)


GATHER = 64  # buffers of one frame: an 82599 takes 40 (datasheet 7.2.1.1)
HEADER_SCRATCH = 4096
STAGED = 64  # frames of a burst that are shown to their receiver at once

_WORD = np.dtype(np.int64)


@dataclass(eq=False)
class CardState(Tables):
    """Everything, for all cards of one process. Compiled functions take it whole."""

    control: Any
    cards: Any
    functions: Any
    tx: Any
    rx: Any
    vectors: Any
    maps: Any
    mac_keys: NDArray[np.int64]  # (cards, MAC_ROWS): MAC + 1 << 48, 0 where empty
    mac_pools: NDArray[np.int64]  # (cards, MAC_ROWS): bit mask of pools
    vlan_pools: NDArray[
        np.int64
    ]  # (cards, 4096): bit mask of pools; row 0 is "untagged and not in a port VLAN"
    multicast: NDArray[np.int64]  # (functions, MULTICAST_WORDS): hash bits
    toeplitz: NDArray[np.int64]  # (functions, TOEPLITZ_ENTRIES)
    reta: NDArray[np.int64]  # (functions, RETA_ENTRIES): receive queues
    drops: NDArray[np.int64]  # (functions, len(Drop))
    instances: Any  # (functions,): as many as there could be
    connections: NDArray[
        np.int64
    ]  # (functions, 2 * CONNECTIONS): key and when it was last seen, 0 where empty
    in_hand: Any  # the one frame that the general path works on
    targets: NDArray[np.int64]  # (functions,): the functions that get it
    gather: NDArray[
        np.int64
    ]  # (2, GATHER): addresses and lengths of its buffers, still in the sender's memory
    staged: NDArray[
        np.int64
    ]  # (3, STAGED): what a burst shows at its end: two words to the receiver, one to the sender

    columns: ClassVar[dict[str, tuple[np.dtype[Any], int]]] = {
        "control": (CONTROL, 0),
        "cards": (CARD, 0),
        "functions": (FUNCTION, 0),
        "tx": (TX_QUEUE, 0),
        "rx": (RX_QUEUE, 0),
        "vectors": (VECTOR, 0),
        "maps": (MAP, 0),
        "mac_keys": (_WORD, MAC_ROWS),
        "mac_pools": (_WORD, MAC_ROWS),
        "vlan_pools": (_WORD, 4096),
        "multicast": (_WORD, MULTICAST_WORDS),
        "toeplitz": (_WORD, TOEPLITZ_ENTRIES),
        "reta": (_WORD, RETA_ENTRIES),
        "drops": (_WORD, len(Drop)),
        "instances": (INSTANCE, 0),
        "connections": (_WORD, 2 * CONNECTIONS),
        "in_hand": (IN_HAND, 0),
        "targets": (_WORD, 0),
        "gather": (_WORD, GATHER),
        "staged": (_WORD, STAGED),
    }


def _records(dtype: np.dtype[Any], count: int) -> Any:
    return np.zeros(count, dtype).view(np.recarray)


def new_state(functions_per_card: list[int]) -> CardState:
    """Zeroed state for the given cards. Scratch memory is part of `control` and lives as long as the state."""
    functions, cards = sum(functions_per_card), len(functions_per_card)
    state = CardState(
        control=_records(CONTROL, 1),
        cards=_records(CARD, cards),
        functions=_records(FUNCTION, functions),
        tx=_records(TX_QUEUE, functions * QUEUES),
        rx=_records(RX_QUEUE, functions * QUEUES),
        vectors=_records(VECTOR, functions * VECTORS),
        maps=_records(MAP, functions * MAPS),
        mac_keys=np.zeros((cards, MAC_ROWS), np.int64),
        mac_pools=np.zeros((cards, MAC_ROWS), np.int64),
        vlan_pools=np.zeros((cards, 4096), np.int64),
        multicast=np.zeros((functions, MULTICAST_WORDS), np.int64),
        toeplitz=np.zeros((functions, TOEPLITZ_ENTRIES), np.int64),
        reta=np.zeros((functions, RETA_ENTRIES), np.int64),
        drops=np.zeros((functions, len(Drop)), np.int64),
        instances=_records(INSTANCE, functions),
        connections=np.zeros((functions, 2 * CONNECTIONS), np.int64),
        in_hand=_records(IN_HAND, 1),
        targets=np.zeros(functions, np.int64),
        gather=np.zeros((2, GATHER), np.int64),
        staged=np.zeros((3, STAGED), np.int64),
    )
    state.control[0].address = state.control.ctypes.data
    state.functions.address[:] = state.functions.ctypes.data + np.arange(functions) * FUNCTION.itemsize
    state.control[0].functions = functions
    state.control[0].cards = cards
    state.control[0].fault_function = NOWHERE
    state.vectors.eventfd[:] = -1
    state.functions.rx_vector[:] = -1
    state.functions.tx_vector[:] = -1
    state.functions.fault[:] = -1
    state.functions.instance[:] = NOWHERE
    first = 0
    for number, count in enumerate(functions_per_card):
        card = state.cards[number]
        card.first, card.functions, card.peer, card.link_up = first, count, NOWHERE, 1
        for pool in range(count):
            state.functions[first + pool].card = number
            state.functions[first + pool].pool = pool
        first += count
    state.publish()
    return state
