"""The 82599's advanced descriptors: receive, transmit data, transmit context. 16 bytes each, little-endian.

Each field stands here twice: as the datasheet names it, within its own dword or word (`TXD_DCMD_EOP` in
cmd_type_len), and as a shift within one of the two 64-bit words of the descriptor (`TXD_Q1_…`, `RXD_Q1_…`),
because a descriptor that two sides share is read and written as whole 64-bit words. qword0 is bytes 0-7,
qword1 bytes 8-15.
Compiled code holds a qword in an int64, so bit 63 makes it negative: mask after shifting.
Sources: 82599 datasheet 7.1.6 (receive), 7.2.3 (transmit); Linux ixgbevf defines.h; DPDK base/ixgbe_type.h.

Receive, read format (the driver offers a buffer; bit 0 of each address must be 0):

    qword0  63                          packet buffer address                            0
    qword1  63                 header buffer address (0: none), bit 0 is DD              0

Receive, write-back format (the device fills in; DD is set last):

    qword0  63      RSS hash      32 31 SPH 30    HDR_LEN    21 20 RSCCNT 17 16 packet type 4 3 RSS type 0
    qword1  63  VLAN tag  48 47  PKT_LEN  32 31   error   20 19             status              0

Transmit, data descriptor, read format:

    qword0  63                               buffer address                              0
    qword1  63 PAYLEN 46 45 POPTS 40 39 CC 38 IDX 36 35 STA 32 | olinfo_status
            31 DCMD 24 23 DTYP 20 19 MAC 18 17 - 16 15 DTALEN 0 | cmd_type_len

Transmit, write-back format (the device reports that the packet is sent; only where RS was set):

    qword0  63                                  reserved                                 0
    qword1  63                  reserved                  33 32 DD 31      reserved      0

Transmit, context descriptor (no buffer; what data descriptors with CC, or TSE, or VLE refer to by IDX):

    qword0  63       FCoEF, IPsec SA index       32 31  VLAN tag  16 15  MACLEN  9 8  IPLEN  0
    qword1  63 MSS 48 47 L4LEN 40 39 - 38 IDX 36 35  -  32 | mss_l4len_idx
            31 DCMD 24 23 DTYP 20 19 TUCMD 9 8 ESP_LEN 0    | type_tucmd_mlhl
"""

DESCRIPTOR_SIZE = 16  # bytes
QWORD1 = 8  # byte offset of qword1

# --- Receive, read format -----------------------------------------------------------------------------------
RXD_READ_PKT_ADDR = 0  # byte offsets
RXD_READ_HDR_ADDR = 8

# --- Receive, write-back: byte offsets ----------------------------------------------------------------------
RXD_PKT_INFO = 0  # 16 bits: RSS type 3:0, packet type 16:4 (the top bit lies in hdr_info)
RXD_HDR_INFO = 2  # 16 bits: SPH, header length, RSC count
RXD_RSS_HASH = 4  # 32 bits; or IP identification (16) and fragment checksum (16)
RXD_STATUS_ERROR = 8  # 32 bits
RXD_LENGTH = 12  # 16 bits: bytes in this buffer, without the FCS where the device strips it
RXD_VLAN = 14  # 16 bits: the tag that was taken out, valid with RXD_STAT_VP

# --- Receive, write-back: within qword0 ---------------------------------------------------------------------
RXD_Q0_RSSTYPE_SHIFT = 0
RXD_Q0_PKTTYPE_SHIFT = 4
RXD_Q0_RSCCNT_SHIFT = 17
RXD_Q0_HDRLEN_SHIFT = 21
RXD_Q0_SPH_SHIFT = 31
RXD_Q0_RSS_HASH_SHIFT = 32

RXD_RSSTYPE_MASK = 0xF  # of the low dword
RXD_PKTTYPE_MASK = 0x0001FFF0  # of the low dword
RXD_RSCCNT_MASK = 0x001E0000  # of the low dword
RXD_HDRLEN_MASK = 0x7FE00000  # of the low dword: bytes of header, 10 bits
RXD_SPH = 1 << 31  # of the low dword: a header was found (and split)

# --- Receive: RSS types -------------------------------------------------------------------------------------
RXD_RSSTYPE_NONE = 0
RXD_RSSTYPE_IPV4_TCP = 1
RXD_RSSTYPE_IPV4 = 2
RXD_RSSTYPE_IPV6_TCP = 3
RXD_RSSTYPE_IPV6_EX = 4
RXD_RSSTYPE_IPV6 = 5
RXD_RSSTYPE_IPV6_TCP_EX = 6
RXD_RSSTYPE_IPV4_UDP = 7
RXD_RSSTYPE_IPV6_UDP = 8
RXD_RSSTYPE_IPV6_UDP_EX = 9

# --- Receive: packet types, where they lie in the low dword -------------------------------------------------
RXD_PKTTYPE_NONE = 0
RXD_PKTTYPE_IPV4 = 1 << 4
RXD_PKTTYPE_IPV4_EX = 1 << 5
RXD_PKTTYPE_IPV6 = 1 << 6
RXD_PKTTYPE_IPV6_EX = 1 << 7
RXD_PKTTYPE_TCP = 1 << 8
RXD_PKTTYPE_UDP = 1 << 9
RXD_PKTTYPE_SCTP = 1 << 10
RXD_PKTTYPE_NFS = 1 << 11
RXD_PKTTYPE_IPSEC_ESP = 1 << 12
RXD_PKTTYPE_IPSEC_AH = 1 << 13
RXD_PKTTYPE_LINKSEC = 1 << 14
RXD_PKTTYPE_ETQF = 1 << 15  # an EtherType filter matched: bits 6:4 are its index instead

# --- Receive, write-back: within qword1 ---------------------------------------------------------------------
RXD_Q1_STATUS_SHIFT = 0
RXD_Q1_ERROR_SHIFT = 20
RXD_Q1_LENGTH_SHIFT = 32
RXD_Q1_VLAN_SHIFT = 48

# --- Receive: status, bits 19:0 of status_error (and of qword1) ---------------------------------------------
RXD_STAT_MASK = 0x000FFFFF
RXD_STAT_DD = 1 << 0  # descriptor done
RXD_STAT_EOP = 1 << 1  # end of packet; without it NEXTP holds the next descriptor's index where RSC is on
RXD_STAT_FLM = 1 << 2  # flow director match
RXD_STAT_VP = 1 << 3  # an 802.1Q tag was there (in `vlan` if it was stripped)
RXD_STAT_UDPCS = 1 << 4  # UDP checksum was calculated
RXD_STAT_L4CS = 1 << 5  # TCP, UDP or SCTP checksum was checked
RXD_STAT_IPCS = 1 << 6  # IPv4 header checksum was checked
RXD_STAT_PIF = 1 << 7  # passed an inexact filter only
RXD_STAT_CRCV = 1 << 8
RXD_STAT_VEXT = 1 << 9  # outer VLAN found
RXD_STAT_UDPV = 1 << 10
RXD_STAT_LLINT = 1 << 11  # raised a low latency interrupt
RXD_STAT_ACK = 1 << 15  # shares its bit with the NEXTP field
RXD_STAT_TS = 1 << 16
RXD_STAT_SECP = 1 << 17
RXD_STAT_LB = 1 << 18  # came from a function of the same port
RXD_NEXTP_SHIFT = 4
RXD_NEXTP_MASK = 0x000FFFF0

# --- Receive: errors, where they lie in status_error --------------------------------------------------------
RXD_ERR_SHIFT = 20
RXD_ERR_MASK = 0xFFF00000
RXD_ERR_HBO = 1 << 23  # header larger than its buffer
RXD_ERR_CE = 1 << 24  # the bits CE, LE, PE, OSE, USE are the older 82598's
RXD_ERR_LE = 1 << 25
RXD_ERR_PE = 1 << 27
RXD_ERR_OSE = 1 << 28
RXD_ERR_USE = 1 << 29
RXD_ERR_RXE = 1 << 29  # the 82599's one bit for any MAC error
RXD_ERR_TCPE = 1 << 30  # TCP/UDP/SCTP checksum is wrong
RXD_ERR_IPE = 1 << 31  # IPv4 header checksum is wrong
RXD_ERR_FRAME_MASK = RXD_ERR_CE | RXD_ERR_LE | RXD_ERR_PE | RXD_ERR_OSE | RXD_ERR_USE

# --- Receive, legacy write-back (DESCTYPE 0; datasheet 7.1.5): within qword1; qword0 stays the address ------
# 63 VLAN tag 48 47 errors 40 39 status 32 31 fragment checksum 16 15 length 0
RXD_LEGACY_STATUS_SHIFT = 32
RXD_LEGACY_STATUS_MASK = 0xFF  # of the advanced status: the same bits
RXD_LEGACY_ERROR_SHIFT = 40
RXD_LEGACY_HIGH_ERRORS_SHIFT = 24  # the errors that it has are bits 31:24 of the advanced status_error
RXD_LEGACY_VLAN_SHIFT = 48

# --- VLAN tags (receive `vlan`, context VLAN) ---------------------------------------------------------------
VLAN_ID_MASK = 0x0FFF
VLAN_CFI_MASK = 0x1000
VLAN_PRI_MASK = 0xE000
VLAN_PRI_SHIFT = 13

# --- Transmit data: byte offsets ----------------------------------------------------------------------------
TXD_BUFFER_ADDR = 0  # 64 bits
TXD_CMD_TYPE_LEN = 8  # 32 bits
TXD_OLINFO_STATUS = 12  # 32 bits

# --- Transmit data: cmd_type_len (bits 31:0 of qword1) ------------------------------------------------------
TXD_DTALEN_MASK = 0x0000FFFF  # bytes in this buffer
TXD_MAC_LINKSEC = 1 << 18
TXD_MAC_TSTAMP = 1 << 19
TXD_DTYP_SHIFT = 20
TXD_DTYP_MASK = 0x00F00000
TXD_DTYP_CTXT = 2 << 20
TXD_DTYP_DATA = 3 << 20
TXD_DCMD_MASK = 0xFF000000
TXD_DCMD_EOP = 1 << 24  # last buffer of the packet
TXD_DCMD_IFCS = 1 << 25  # append the FCS
TXD_DCMD_RS = 1 << 27  # report status: write DD back
TXD_DCMD_DEXT = 1 << 29  # advanced descriptor (0: legacy)
TXD_DCMD_VLE = 1 << 30  # insert the context's VLAN tag
TXD_DCMD_TSE = 1 << 31  # segment the packet as the context says

# --- Transmit data: olinfo_status ---------------------------------------------------------------------------
TXD_STAT_DD = 1 << 0  # write-back: sent
TXD_STAT_SN_CRC = 1 << 1
TXD_IDX_SHIFT = 4
TXD_IDX_MASK = 7 << 4  # a VF's queue keeps two contexts: 0 and 1
TXD_CC = 1 << 7  # use the context: a VF must, for the switch's anti-spoofing looks at MACLEN
TXD_POPTS_SHIFT = 8
TXD_POPTS_IXSM = 1 << 8  # insert the IPv4 header checksum
TXD_POPTS_TXSM = 1 << 9  # insert the TCP, UDP or SCTP checksum
TXD_POPTS_IPSEC = 1 << 10
TXD_PAYLEN_SHIFT = 14
TXD_PAYLEN_MASK = 0xFFFFC000  # bytes of the whole packet; with TSE, without its headers
TXD_PAYLEN_MAX = 0x3FFFF

# --- Transmit data: within qword1 ---------------------------------------------------------------------------
TXD_Q1_OLINFO_SHIFT = 32
TXD_Q1_DTALEN_SHIFT = 0
TXD_Q1_DTYP_SHIFT = 20
TXD_Q1_DCMD_SHIFT = 24
TXD_Q1_DD = 1 << 32
TXD_Q1_IDX_SHIFT = 36
TXD_Q1_CC = 1 << 39
TXD_Q1_POPTS_SHIFT = 40
TXD_Q1_IXSM = 1 << 40
TXD_Q1_TXSM = 1 << 41
TXD_Q1_PAYLEN_SHIFT = 46

# --- Transmit context: byte offsets -------------------------------------------------------------------------
CTXD_VLAN_MACIP_LENS = 0  # four dwords
CTXD_FCEOF_SAIDX = 4
CTXD_TYPE_TUCMD_MLHL = 8
CTXD_MSS_L4LEN_IDX = 12

# --- Transmit context: vlan_macip_lens (bits 31:0 of qword0) ------------------------------------------------
CTXD_IPLEN_SHIFT = 0
CTXD_IPLEN_MASK = 0x000001FF  # bytes of IP header
CTXD_MACLEN_SHIFT = 9
CTXD_MACLEN_MASK = 0x0000FE00  # bytes of MAC header, without a tag that is to be inserted
CTXD_VLAN_SHIFT = 16
CTXD_VLAN_MASK = 0xFFFF0000

# --- Transmit context: type_tucmd_mlhl (bits 31:0 of qword1; DTYP and DEXT as in data) ----------------------
CTXD_TUCMD_SHIFT = 9
CTXD_TUCMD_SNAP = 1 << 9
CTXD_TUCMD_IPV4 = 1 << 10
CTXD_TUCMD_IPV6 = 0
CTXD_TUCMD_L4T_MASK = 3 << 11
CTXD_TUCMD_L4T_UDP = 0 << 11
CTXD_TUCMD_L4T_TCP = 1 << 11
CTXD_TUCMD_L4T_SCTP = 2 << 11
CTXD_TUCMD_L4T_RSV = 3 << 11
CTXD_TUCMD_IPSEC_TYPE_ESP = 1 << 13
CTXD_TUCMD_IPSEC_ENCRYPT_EN = 1 << 14

# --- Transmit context: mss_l4len_idx ------------------------------------------------------------------------
CTXD_IDX_SHIFT = 4
CTXD_IDX_MASK = 7 << 4
CTXD_L4LEN_SHIFT = 8
CTXD_L4LEN_MASK = 0x0000FF00  # bytes of TCP or UDP header
CTXD_MSS_SHIFT = 16
CTXD_MSS_MASK = 0xFFFF0000  # bytes of payload in each segment

# --- Transmit context: within the qwords --------------------------------------------------------------------
CTXD_Q0_IPLEN_SHIFT = 0
CTXD_Q0_MACLEN_SHIFT = 9
CTXD_Q0_VLAN_SHIFT = 16
CTXD_Q1_IDX_SHIFT = 36
CTXD_Q1_L4LEN_SHIFT = 40
CTXD_Q1_MSS_SHIFT = 48
