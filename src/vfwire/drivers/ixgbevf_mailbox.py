"""The VF's side of the mailbox with the PF (82599 datasheet 8.3.5.1.5, VFMAILBOX and VFMBMEM; Linux ixgbevf mbx.h).

One request at a time: write the message, set REQ, wait for the PF's answer (PFSTS), read it, set ACK. Bits that clear
when they are read (PFSTS, PFACK, RSTD) are remembered here until somebody asked for them.
"""

import time
from collections.abc import Callable

from vfwire.errors import ProtocolError, WaitTimeout
from vfwire.layouts import ixgbe_mailbox as mbx
from vfwire.layouts.ixgbevf import (
    MAILBOX_ACK,
    MAILBOX_PFACK,
    MAILBOX_PFSTS,
    MAILBOX_PFU,
    MAILBOX_R2C_BITS,
    MAILBOX_REQ,
    MAILBOX_RSTD,
    MAILBOX_RSTI,
    MAILBOX_VFU,
    VFMAILBOX,
    VFMBMEM,
)
from vfwire.pci.function import Function

WAIT_SECONDS = 2.0
APIS = (mbx.API_17, mbx.API_16, mbx.API_14, mbx.API_13, mbx.API_12, mbx.API_11, mbx.API_10)


class Mailbox:
    """Messages to the PF and back. Raises WaitTimeout when it does not answer, ProtocolError when it refuses."""

    def __init__(self, function: Function) -> None:
        self._function = function
        self._seen = 0
        self.api = mbx.API_10

    def _bits(self) -> int:
        value = self._function.read32(0, VFMAILBOX) | self._seen
        self._seen |= value & MAILBOX_R2C_BITS
        return value

    def _wait(self, what: str, condition: Callable[[int], bool]) -> None:
        deadline = time.monotonic() + WAIT_SECONDS
        while not condition(value := self._bits()):
            if time.monotonic() > deadline:
                raise WaitTimeout(f"the PF did not answer: waited for {what}, VFMAILBOX is {value:#x}")

    def wait_reset_done(self) -> None:
        """After VFCTRL.RST: until the PF says that its side of the reset is over (RSTD, or RSTI gone)."""
        self._wait("RSTD", lambda value: bool(value & MAILBOX_RSTD) or not value & MAILBOX_RSTI)
        self._seen = 0

    def request(self, words: list[int]) -> list[int]:
        """Send a message of 1 to 16 words and return the answer's 16 words, word 0 with ACK or NACK in it."""
        self._function.write32(0, VFMAILBOX, MAILBOX_VFU)
        self._wait("VFU", lambda value: bool(value & MAILBOX_VFU) and not value & MAILBOX_PFU)
        self._seen = 0
        for index, word in enumerate(words):
            self._function.write32(0, VFMBMEM + 4 * index, word)
        self._function.write32(0, VFMAILBOX, MAILBOX_REQ)
        self._wait("PFACK", lambda value: bool(value & MAILBOX_PFACK))
        self._wait("PFSTS", lambda value: bool(value & MAILBOX_PFSTS))
        answer = [self._function.read32(0, VFMBMEM + 4 * index) for index in range(mbx.WORDS)]
        self._function.write32(0, VFMAILBOX, MAILBOX_ACK)
        self._seen = 0
        return answer

    def control_message(self) -> int | None:
        """Word 0 of a message that the PF has sent by itself, acknowledged; None when there is none."""
        if not self._bits() & MAILBOX_PFSTS:
            return None
        word = self._function.read32(0, VFMBMEM)
        self._function.write32(0, VFMAILBOX, MAILBOX_ACK)
        self._seen = 0
        return word

    def demand(self, words: list[int]) -> list[int]:
        """As `request`; a NACK raises ProtocolError."""
        answer = self.request(words)
        if answer[0] & mbx.MSGTYPE_NACK or not answer[0] & mbx.MSGTYPE_ACK:
            kind = words[0] & mbx.MSGTYPE_MASK
            raise ProtocolError(f"the PF refused {mbx.MESSAGE_NAMES.get(kind, hex(kind))}")
        return answer

    def reset(self) -> bytes:
        """Say hello after a reset; returns the MAC that the PF gives, 6 bytes in wire order."""
        answer = self.demand([mbx.VF_RESET])
        first, second = answer[mbx.PERMADDR_MAC_WORD], answer[mbx.PERMADDR_MAC_WORD + 1]
        return first.to_bytes(4, "little") + (second & 0xFFFF).to_bytes(2, "little")

    def negotiate(self) -> int:
        """The highest API that both know; returns its number (ixgbe_mailbox.API_*)."""
        for api in APIS:
            if self.request([mbx.VF_API_NEGOTIATE, api])[0] & mbx.MSGTYPE_ACK:
                self.api = api
                return api
        raise ProtocolError("the PF accepts no mailbox API that this driver speaks")

    def queues(self) -> tuple[int, int]:
        """(transmit, receive) queues that this VF has; one each before API 1.1."""
        if self.api == mbx.API_10:
            return 1, 1
        answer = self.demand([mbx.VF_GET_QUEUES, 0, 0, 0, 0])
        return answer[mbx.TX_QUEUES_WORD], answer[mbx.RX_QUEUES_WORD]

    def set_longest_frame(self, frame_bytes: int) -> None:
        """frame_bytes: with header and FCS."""
        self.demand([mbx.VF_SET_LPE, frame_bytes])

    def add_vlan(self, vlan: int, present: bool = True) -> None:
        self.demand([mbx.VF_SET_VLAN | (int(present) << mbx.MSGINFO_SHIFT), vlan])

    def add_mac(self, mac: bytes, index: int) -> None:
        """One more unicast MAC. index 1 begins a new list, 0 clears it (with any MAC)."""
        words = [int.from_bytes(mac[:4], "little"), int.from_bytes(mac[4:], "little")]
        self.demand([mbx.VF_SET_MACVLAN | (index << mbx.MSGINFO_SHIFT), *words])

    def set_multicast(self, addresses: list[bytes]) -> None:
        """Receive these groups (at most 30). Each is told by the 12-bit vector of bits 47:36."""
        if len(addresses) > mbx.MULTICAST_HASHES_MAX:
            raise ProtocolError("an 82599 VF asks for 30 multicast groups at the most", "use all-multicast")
        vectors = [(mac[4] >> 4) | (mac[5] << 4) for mac in addresses]
        vectors += [0] * (len(vectors) % 2)
        pairs = [low | high << 16 for low, high in zip(vectors[::2], vectors[1::2], strict=True)]
        self.demand([mbx.VF_SET_MULTICAST | (len(addresses) << mbx.MSGINFO_SHIFT), *pairs])

    def set_cast_mode(self, mode: int) -> int:
        """Ask for XCAST_MODE_*; returns the mode that the PF grants."""
        return self.demand([mbx.VF_UPDATE_XCAST_MODE, mode])[mbx.XCAST_WORD]
