"""The trapping pages of an 82599 VF's BAR0: control, interrupts, moderation, vectors, mailbox (82599
datasheet 8.3.5).

Causes and masks are words that the loop changes too, so they are changed by atomic operations and never by
parking it: a guest that re-enables its interrupt waits microseconds.
"""

import time
from collections.abc import Callable

from vfwire.datapath.control_words import (
    clear_bits,
    field_address,
    load_word,
    row_of,
    set_bits,
    store_word,
    take_word,
)
from vfwire.datapath.ixgbevf_interrupt_registers import write_interrupt_register
from vfwire.datapath.rss import RSS_DEFAULT
from vfwire.datapath.state import IXGBEVF_QUEUES, VECTORS
from vfwire.devices.engine import Engine
from vfwire.devices.ixgbevf_mailbox import Mailbox
from vfwire.layouts import ixgbevf as regs

_WORD = 0xFFFFFFFF
_IVAR_MASK = (regs.IVAR_VALID | regs.IVAR_VECTOR_MASK) * 0x01010101
_MISC_MASK = regs.IVAR_VALID | regs.IVAR_VECTOR_MASK
_PSRTYPE_MASK = (
    regs.PSRTYPE_TCPHDR
    | regs.PSRTYPE_UDPHDR
    | regs.PSRTYPE_IPV4HDR
    | regs.PSRTYPE_IPV6HDR
    | regs.PSRTYPE_L2HDR
    | regs.PSRTYPE_RQPL_MASK
)

# Registers of the queue pages: the bits that can be written, where a guest's write traps (option `exact`).
QUEUE_REGISTER_MASKS = {
    "VFRDBAL": 0xFFFFFF80,
    "VFRDBAH": _WORD,
    "VFRDLEN": regs.RING_LENGTH_MASK,
    "VFDCA_RXCTRL": 0xFF00A2E0,
    "VFSRRCTL": 0x1F
    | regs.SRRCTL_BSIZEHDR_MASK
    | regs.SRRCTL_RDMTS_MASK
    | regs.SRRCTL_DESCTYPE_MASK
    | regs.SRRCTL_DROP_EN,
    "VFRDT": regs.RING_INDEX_MASK,
    "VFRXDCTL": regs.RXDCTL_ENABLE | regs.RXDCTL_SWFLSH | regs.RXDCTL_VME,
    "VFRSCCTL": 0xF,
    "VFTDBAL": 0xFFFFFF80,
    "VFTDBAH": _WORD,
    "VFTDLEN": regs.RING_LENGTH_MASK,
    "VFDCA_TXCTRL": 0xFF002A20,
    "VFTDT": regs.RING_INDEX_MASK,
    "VFTXDCTL": regs.TXDCTL_PTHRESH_MASK
    | regs.TXDCTL_HTHRESH_MASK
    | regs.TXDCTL_WTHRESH_MASK
    | regs.TXDCTL_ENABLE
    | regs.TXDCTL_SWFLSH,
    "VFTDWBAL": regs.TDWBAL_ADDRESS_MASK | regs.TDWBAL_HEAD_WB_ENABLE | regs.TDWBAL_SEQNUM_WB_ENABLE,
    "VFTDWBAH": _WORD,
}

# What is not zero after a reset (82599 datasheet 8.2.3.8.7 SRRCTL: 2 KiB and 256 bytes; 8.2.3.11 DCA
# control).
QUEUE_REGISTER_DEFAULTS = {
    regs.VFSRRCTL: 2 | 4 << regs.SRRCTL_BSIZEHDR_SHIFT,
    regs.VFDCA_RXCTRL: regs.DCA_RXCTRL_DESC_RRO_EN
    | regs.DCA_RXCTRL_DATA_WRO_EN
    | regs.DCA_RXCTRL_HEAD_WRO_EN,
    regs.VFDCA_TXCTRL: regs.DCA_TXCTRL_DESC_RRO_EN
    | regs.DCA_TXCTRL_DESC_WRO_EN
    | regs.DCA_TXCTRL_DATA_RRO_EN,
}


class ControlRegisters:
    """Reads and writes of one function's trapping registers, by exact offset. All values are 0 to 2**32 - 1.

    queues: how many it has. on_reset: VFCTRL.RST was written. links: what VFLINKS reads.
    """

    def __init__(
        self,
        engine: Engine,
        function: int,
        queues: int,
        on_reset: Callable[[], None],
        links: Callable[[], int],
    ) -> None:
        self.mailbox: Mailbox | None = None
        self._engine = engine
        self._function = function
        self._queues = queues
        self._on_reset = on_reset
        self._links = links
        self._plain: dict[int, int] = {}
        functions = engine.state.functions
        self._record = row_of(functions, function)
        (
            self._causes,
            self._mask,
            self._auto_clear,
            self._auto_mask,
            self._rx_vector,
            self._tx_vector,
            self._rss,
            self._rx_queues,
            self._psrtype,
        ) = (
            field_address(functions, function, name)
            for name in (
                "causes",
                "mask",
                "auto_clear",
                "auto_mask",
                "rx_vector",
                "tx_vector",
                "rss",
                "rx_queues",
                "psrtype",
            )
        )
        self._mailbox_vector = -1

    def reset(self) -> None:
        """Every register as after power-on. While the loop is parked."""
        self._plain.clear()
        self._mailbox_vector = -1
        for name in ("causes", "mask", "auto_clear", "auto_mask", "pending", "rss", "psrtype"):
            self._record[name] = 0
        self._record["rx_queues"] = self._queues
        self._record["rx_vector"] = self._record["tx_vector"] = -1
        for vector in range(self._function * VECTORS, (self._function + 1) * VECTORS):
            record = row_of(self._engine.state.vectors, vector)
            record["interval_ns"] = record["next_ns"] = record["written"] = 0

    def raise_mailbox_interrupt(self) -> None:
        """The mailbox cause, on the vector that the guest chose for it; nothing where it chose none."""
        if self._mailbox_vector >= 0:
            self._cause(1 << self._mailbox_vector)

    def _cause(self, bits: int) -> None:
        set_bits(self._causes, bits)
        self._wake()

    def _wake(self) -> None:
        if load_word(self._causes) & load_word(self._mask):
            self._engine.kick()

    # --- Reading -------------------------------------------------------------------------------------------

    def read(self, offset: int) -> int | None:
        """The value of the register at `offset`, or None where there is none."""
        where = regs.decode(offset)
        if where is None:
            return None
        name, index = where
        if name == "VFMBMEM":
            return self.mailbox.buffer[index] if self.mailbox else 0
        reader = _READERS.get(name)
        if name == "VTEITR":
            return int(row_of(self._engine.state.vectors, self._function * VECTORS + index)["written"])
        return reader(self) & _WORD if reader else self._plain.get(offset, 0)

    def _read_causes(self) -> int:
        """A read clears. (A guest with MSI-X and auto-clear has no need to read it.)"""
        return int(take_word(self._causes))

    def _read_mask(self) -> int:
        return int(load_word(self._mask))

    def _read_auto_clear(self) -> int:
        return int(load_word(self._auto_clear))

    def _read_auto_mask(self) -> int:
        return int(load_word(self._auto_mask))

    def _read_links(self) -> int:
        return self._links()

    def _read_timer(self) -> int:
        return time.monotonic_ns() // 1000

    def _read_mailbox(self) -> int:
        return self.mailbox.read_control() if self.mailbox else 0

    # --- Writing -------------------------------------------------------------------------------------------

    def write(self, offset: int, value: int) -> bool:
        """Write a register. False where there is none; a write to one that cannot be written is ignored."""
        where = regs.decode(offset)
        if where is None:
            return False
        name, index = where
        writer = _WRITERS.get(name)
        if writer is not None:
            writer(self, index, value)
        else:
            write_interrupt_register(self._engine.state, self._function, offset, value)
        return True

    def _write_control(self, _index: int, value: int) -> None:
        if value & regs.CTRL_RST:
            self._on_reset()

    def _write_causes(self, _index: int, value: int) -> None:
        clear_bits(self._causes, value & regs.EICR_MASK)

    def _write_cause_set(self, _index: int, value: int) -> None:
        self._cause(value & regs.EICR_MASK)

    def _write_auto_clear(self, _index: int, value: int) -> None:
        store_word(self._auto_clear, value & regs.EICR_MASK)

    def _write_auto_mask(self, _index: int, value: int) -> None:
        store_word(self._auto_mask, value & regs.EICR_MASK)

    def _write_vectors(self, index: int, value: int) -> None:
        self._plain[regs.VTIVAR + 4 * index] = value & _IVAR_MASK
        for half in range(regs.IVAR_QUEUES_PER_REGISTER):
            queue = regs.IVAR_QUEUES_PER_REGISTER * index + half
            if queue >= min(IXGBEVF_QUEUES, self._queues):
                return
            entry = value >> (regs.IVAR_QUEUE_SHIFT * half)
            store_word(self._rx_vector + 8 * queue, _vector(entry))
            store_word(self._tx_vector + 8 * queue, _vector(entry >> regs.IVAR_TX_SHIFT))

    def _write_misc_vector(self, _index: int, value: int) -> None:
        self._plain[regs.VTIVAR_MISC] = value & _MISC_MASK
        self._mailbox_vector = _vector(value)

    def _write_rsc(self, index: int, value: int) -> None:
        self._plain[regs.VTRSCINT + 4 * index] = value

    def _write_mailbox_word(self, index: int, value: int) -> None:
        if self.mailbox:
            self.mailbox.buffer[index] = value

    def _write_mailbox(self, _index: int, value: int) -> None:
        if self.mailbox:
            self.mailbox.write_control(value)

    def _write_psrtype(self, _index: int, value: int) -> None:
        """Where headers are split, and the queues that RSS spreads over: none, or 2 or 4 (never more than the
        function has), and then no frame goes to the others.
        """
        self._plain[regs.VFPSRTYPE] = value & _PSRTYPE_MASK
        store_word(self._psrtype, value & _PSRTYPE_MASK)
        spread = 1 << ((value & regs.PSRTYPE_RQPL_MASK) >> regs.PSRTYPE_RQPL_SHIFT)
        store_word(self._rx_queues, min(spread, self._queues) if spread > 1 else self._queues)
        store_word(self._rss, RSS_DEFAULT if spread > 1 else 0)


def _vector(entry: int) -> int:
    """The vector that one byte of VTIVAR names, -1 for none."""
    vector = entry & regs.IVAR_VECTOR_MASK
    return vector if entry & regs.IVAR_VALID and vector < regs.MSIX_VECTORS else -1


_READERS: dict[str, Callable[[ControlRegisters], int]] = {
    "VTEICR": ControlRegisters._read_causes,
    "VTEIMS": ControlRegisters._read_mask,
    "VTEIAC": ControlRegisters._read_auto_clear,
    "VTEIAM": ControlRegisters._read_auto_mask,
    "VFLINKS": ControlRegisters._read_links,
    "VFFRTIMER": ControlRegisters._read_timer,
    "VFMAILBOX": ControlRegisters._read_mailbox,
}

_WRITERS: dict[str, Callable[[ControlRegisters, int, int], None]] = {
    "VFCTRL": ControlRegisters._write_control,
    "VTEICR": ControlRegisters._write_causes,
    "VTEICS": ControlRegisters._write_cause_set,
    "VTEIAC": ControlRegisters._write_auto_clear,
    "VTEIAM": ControlRegisters._write_auto_mask,
    "VTIVAR": ControlRegisters._write_vectors,
    "VTIVAR_MISC": ControlRegisters._write_misc_vector,
    "VTRSCINT": ControlRegisters._write_rsc,
    "VFMBMEM": ControlRegisters._write_mailbox_word,
    "VFMAILBOX": ControlRegisters._write_mailbox,
    "VFPSRTYPE": ControlRegisters._write_psrtype,
}
