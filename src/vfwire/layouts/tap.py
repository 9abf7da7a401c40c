"""A tap as the kernel offers it: /dev/net/tun's ioctls and flags, and the header before each frame.

Sources: Linux include/uapi/linux/if_tun.h, include/uapi/linux/if.h, include/uapi/linux/virtio_net.h (struct
virtio_net_hdr: little-endian on the machines that this runs on, 10 bytes).
"""

TUN_DEVICE = "/dev/net/tun"
IFNAMSIZ = 16  # bytes of a name, with its zero

TUNSETIFF = 0x400454CA
TUNGETFEATURES = 0x800454CF
TUNSETOFFLOAD = 0x400454D0
TUNSETCARRIER = 0x400454E2

IFF_TAP = 0x0002
IFF_NO_PI = 0x1000
IFF_VNET_HDR = 0x4000
IFF_TUN_EXCL = 0x8000

# TUNSETOFFLOAD: what the kernel may hand over without having done it.
TUN_F_CSUM = 0x01
TUN_F_TSO4 = 0x02
TUN_F_TSO6 = 0x04
TUN_F_TSO_ECN = 0x08

# struct virtio_net_hdr, byte offsets.
VNET_FLAGS = 0
VNET_GSO_TYPE = 1
VNET_HDR_LEN = 2
VNET_GSO_SIZE = 4
VNET_CSUM_START = 6
VNET_CSUM_OFFSET = 8
VNET_BYTES = 10

VNET_NEEDS_CSUM = 1  # sum from csum_start to the end, and put it at csum_start + csum_offset
VNET_DATA_VALID = 2  # the checksum was found right

VNET_GSO_NONE = 0
VNET_GSO_TCPV4 = 1
VNET_GSO_TCPV6 = 4
VNET_GSO_ECN = 0x80
