"""A card without its loop, and a guest that knows an 82599 VF's registers: what the device tests stand on."""

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np

from vfwire.devices.card import Card, functions_of
from vfwire.devices.engine import Engine
from vfwire.devices.ixgbevf import VirtualFunction82599
from vfwire.devices.settings import mac_to_int
from vfwire.layouts import ixgbe_mailbox as msg
from vfwire.layouts import ixgbevf as regs
from vfwire.layouts import pci
from vfwire.pci.endpoint import RegionIndex

KEY = bytes(range(40))


@contextmanager
def card_of(vfs: int = 2, *, host_function: bool = False, **options: object) -> Iterator[Card]:
    """A card in an engine that is not started: state changes at once, and stays as the control side has put it."""
    engine = Engine([functions_of(vfs, host_function=host_function)])
    try:
        card = Card(engine, 0, "card0", vfs, host_function=host_function, rss_key=KEY, **options)  # type: ignore[arg-type]
        try:
            yield card
        finally:
            card.close()
    finally:
        engine.close()


class Guest:
    """The driver's view of one function, by trapped accesses only."""

    def __init__(self, function: VirtualFunction82599) -> None:
        self.function = function
        self.state = function.port.engine.state
        self.record = self.state.functions[function.port.function]
        function.attach()

    def read(self, offset: int, bar: int = 0) -> int:
        return int.from_bytes(self.function.region_read(bar, offset, 4), "little")

    def write(self, offset: int, value: int, bar: int = 0) -> None:
        self.function.region_write(bar, offset, value.to_bytes(4, "little"))

    def bus_master(self, on: bool = True) -> None:
        value = pci.COMMAND_MASTER | pci.COMMAND_MEMORY if on else 0
        self.function.region_write(RegionIndex.CONFIG, pci.COMMAND, value.to_bytes(2, "little"))

    def send(self, words: list[int]) -> int:
        """Put a message into the mailbox, as Linux ixgbevf does; returns VFMAILBOX as then read."""
        self.write(regs.VFMAILBOX, regs.MAILBOX_VFU)
        assert self.read(regs.VFMAILBOX) & regs.MAILBOX_VFU
        for index, word in enumerate(words):
            self.write(regs.VFMBMEM + 4 * index, word)
        self.write(regs.VFMAILBOX, regs.MAILBOX_REQ)
        return self.read(regs.VFMAILBOX)

    def receive(self, words: int = regs.MAILBOX_WORDS) -> list[int]:
        """Take the PF's message and acknowledge it."""
        message = [self.read(regs.VFMBMEM + 4 * index) for index in range(words)]
        self.write(regs.VFMAILBOX, regs.MAILBOX_ACK)
        return message

    def ask(self, words: list[int]) -> list[int]:
        bits = self.send(words)
        assert bits & regs.MAILBOX_PFSTS and bits & regs.MAILBOX_PFACK
        return self.receive()

    def granted(self, words: list[int]) -> list[int] | None:
        """The answer to a request when it was granted, None when it was refused."""
        answer = self.ask(words)
        assert answer[0] & msg.MSGTYPE_MASK == words[0] & msg.MSGTYPE_MASK
        assert bool(answer[0] & msg.MSGTYPE_ACK) != bool(answer[0] & msg.MSGTYPE_NACK)
        return answer if answer[0] & msg.MSGTYPE_ACK else None

    def reset(self, api: int = msg.API_17) -> list[int]:
        """Reset through register and mailbox, then agree on an API version. Returns the reset's answer."""
        self.write(regs.VFCTRL, regs.CTRL_RST)
        answer = self.ask([msg.VF_RESET])
        if api != msg.API_10:
            assert self.granted([msg.VF_API_NEGOTIATE, api]) is not None
        return answer

    def multicast_bits(self) -> set[int]:
        """The hashes that the switch lets through to this function."""
        words = self.state.multicast[self.function.port.function].astype(np.uint64)
        return {64 * place + bit for place in range(64) for bit in range(64) if int(words[place]) >> bit & 1}


def pools_of(card: Card, mac: bytes) -> int:
    """The mask of pools that the switch has entered for a MAC."""
    state, wanted = card.engine.state, mac_to_int(mac) | 1 << 48
    found = np.flatnonzero(state.mac_keys[card.number] == wanted)
    return int(state.mac_pools[card.number, found[0]]) if len(found) else 0


def mac_words(mac: bytes) -> list[int]:
    return [int.from_bytes(mac[:4], "little"), int.from_bytes(mac[4:6], "little")]
