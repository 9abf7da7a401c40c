"""Xen's network protocol: the entries of netfront's two rings, and the names of its xenstore keys.

Source: Xen public headers, io/netif.h; the key names also Linux xen-netback/xenbus.c. Offsets and sizes in
bytes, all fields little-endian. Seen from the guest: "tx" is what the guest sends.
"""

from vfwire.layouts.xen_ring import ring_entries

# struct netif_tx_request
TXREQ_GREF = 0  # u32: the page that holds the frame
TXREQ_OFFSET = 4  # u16: of the frame in that page
TXREQ_FLAGS = 6  # u16: NETTXF_*
TXREQ_ID = 8  # u16: comes back in the response
TXREQ_SIZE = 10  # u16: of the frame
TXREQ_BYTES = 12

# struct netif_tx_response, in the slot of a request
TXRSP_ID = 0  # u16
TXRSP_STATUS = 2  # s16: NETIF_RSP_*
TXRSP_BYTES = 4

# struct netif_rx_request
RXREQ_ID = 0  # u16
RXREQ_GREF = 4  # u32: the page that takes a frame
RXREQ_BYTES = 8

# struct netif_rx_response, always in the slot of its own request
RXRSP_ID = 0  # u16
RXRSP_OFFSET = 2  # u16: of the frame in its page
RXRSP_FLAGS = 4  # u16: NETRXF_*
RXRSP_STATUS = 6  # s16: the frame's size, or a negative NETIF_RSP_*
RXRSP_BYTES = 8

# struct netif_extra_info, in the slot of a tx request or rx response
EXTRA_TYPE = 0  # u8
EXTRA_FLAGS = 1  # u8
EXTRA_BYTES = 8

TX_ENTRY_BYTES = TXREQ_BYTES  # of the union of request and response
RX_ENTRY_BYTES = RXREQ_BYTES
TX_RING_SIZE = ring_entries(TX_ENTRY_BYTES)
RX_RING_SIZE = ring_entries(RX_ENTRY_BYTES)

NETTXF_CSUM_BLANK = 1 << 0  # the protocol checksum is not there yet
NETTXF_DATA_VALIDATED = 1 << 1
NETTXF_MORE_DATA = 1 << 2  # the frame goes on in the next request
NETTXF_EXTRA_INFO = 1 << 3  # an extra info entry follows

NETRXF_DATA_VALIDATED = 1 << 0
NETRXF_CSUM_BLANK = 1 << 1
NETRXF_MORE_DATA = 1 << 2
NETRXF_EXTRA_INFO = 1 << 3
NETRXF_GSO_PREFIX = 1 << 4

NETIF_RSP_DROPPED = -2
NETIF_RSP_ERROR = -1
NETIF_RSP_OKAY = 0
NETIF_RSP_NULL = 1  # the answer to an extra info entry

MAX_TX_BYTES = 0xFFFF

# xenstore keys of a frontend and of a backend
KEY_STATE = "state"
KEY_MAC = "mac"
KEY_MTU = "mtu"
KEY_TX_RING_REF = "tx-ring-ref"
KEY_RX_RING_REF = "rx-ring-ref"
KEY_EVENT_CHANNEL_TX = "event-channel-tx"
KEY_EVENT_CHANNEL_RX = "event-channel-rx"
KEY_REQUEST_RX_COPY = "request-rx-copy"
KEY_RX_NOTIFY = "feature-rx-notify"
KEY_RX_COPY = "feature-rx-copy"
KEY_SG = "feature-sg"
KEY_NO_CSUM_OFFLOAD = "feature-no-csum-offload"
KEY_SPLIT_CHANNELS = "feature-split-event-channels"
KEY_MAX_QUEUES = "multi-queue-max-queues"
KEY_NUM_QUEUES = "multi-queue-num-queues"
KEY_XDP_HEADROOM = "xdp-headroom"  # frontend: bytes to leave free before a received frame
KEY_FEATURE_XDP_HEADROOM = "feature-xdp-headroom"
KEY_ERROR = "error"
