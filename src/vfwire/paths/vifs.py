"""The frontends of a virtualization layer: who may connect, with what, and how each comes and goes.

A thread of its own: it accepts, speaks xenbus, and takes a frontend out when it closes, breaks the protocol
or dies.
"""

import os
import selectors
import threading
from typing import TYPE_CHECKING

from vfwire.bus.xen.backend import Listener, XenbusBackend
from vfwire.bus.xen.xenbus import number
from vfwire.datapath.netback_state import STOP_REASONS
from vfwire.drivers.netfront import MAX_HEADROOM, parse_mac
from vfwire.errors import ProtocolError, VfwireError
from vfwire.layouts import xen_netif as keys
from vfwire.layouts.xen_grant import DOMID_0, ENTRIES_PER_PAGE
from vfwire.layouts.xen_ring import PAGE_BYTES
from vfwire.layouts.xenbus import XenbusState

if TYPE_CHECKING:
    from vfwire.paths.layer import VirtualizationLayer

WATCH_SECONDS = 1.0  # how often the loop is looked after: see `_unblock`
MAX_FRONTENDS = 64  # connections, with those that have not connected their rings


class Vif:
    """One frontend of the layer; `number` is -1 until its rings are connected."""

    def __init__(self, backend: XenbusBackend) -> None:
        self.backend = backend
        self.number = -1
        self.mac = b""
        self.ring_refs = (0, 0)
        self.attached = False


class VifControl:
    """The control thread of a layer."""

    def __init__(self, layer: "VirtualizationLayer", listener: Listener) -> None:
        self._layer = layer
        self._listener = listener
        self._vifs: dict[XenbusBackend, Vif] = {}
        self._selector = selectors.DefaultSelector()
        self._selector.register(listener, selectors.EVENT_READ)
        self._quit_fd = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self._selector.register(self._quit_fd, selectors.EVENT_READ)
        self._thread = threading.Thread(target=self._run, name="xenbus", daemon=True)
        self._loop_seen = (-1, False)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """Close all frontends, with Closing to those that listen."""
        os.eventfd_write(self._quit_fd, 1)
        self._thread.join()
        self._selector.close()
        os.close(self._quit_fd)

    def _run(self) -> None:
        quitting = False
        while not quitting:
            for key, _ in self._selector.select(WATCH_SECONDS):
                if key.fileobj is self._listener:
                    self._accept()
                elif key.fileobj == self._quit_fd:
                    quitting = True
                elif key.data in self._vifs:
                    self._take(key.data)
            self._drop_stopped()
            self._unblock()
        for backend in list(self._vifs):
            backend.fail("the virtualization layer was stopped")
            self._remove(backend)

    def _accept(self) -> None:
        channel = self._listener.accept()
        if channel is None:
            return
        if len(self._vifs) >= MAX_FRONTENDS:
            channel.close()
            return
        backend = XenbusBackend(channel, self._on_state)
        self._vifs[backend] = Vif(backend)
        self._selector.register(backend, selectors.EVENT_READ, backend)

    def _take(self, backend: XenbusBackend) -> None:
        try:
            backend.take()
        except VfwireError as error:
            backend.fail(error.message)
            self._remove(backend)

    def _remove(self, backend: XenbusBackend) -> None:
        vif = self._vifs.pop(backend)
        self._selector.unregister(backend)
        self._detach(vif)
        backend.close()

    def _detach(self, vif: Vif) -> None:
        if vif.attached:
            vif.attached = False
            self._layer.detach(vif)

    def _on_state(self, backend: XenbusBackend, state: XenbusState) -> None:
        vif = self._vifs[backend]
        if state == XenbusState.INITIALISING:
            self._introduce(vif)
        elif state == XenbusState.INITIALISED:
            self._connect(vif)
            backend.switch(XenbusState.CONNECTED)
        elif state == XenbusState.CLOSING:
            self._detach(vif)
            backend.switch(XenbusState.CLOSING)
        elif state == XenbusState.CLOSED:
            self._detach(vif)
            backend.switch(XenbusState.CLOSED)

    def _introduce(self, vif: Vif) -> None:
        wish = vif.backend.frontend.get(keys.KEY_MAC)
        vif.mac = self._layer.choose_mac(None if wish is None else parse_mac(wish))
        offer = {
            keys.KEY_MAC: vif.mac.hex(":"),
            keys.KEY_MTU: str(self._layer.mtu),
            keys.KEY_RX_COPY: "1",
            keys.KEY_SPLIT_CHANNELS: "1",
            keys.KEY_SG: "0",
            keys.KEY_FEATURE_XDP_HEADROOM: "1",
            keys.KEY_MAX_QUEUES: "1",
        }
        vif.backend.switch(XenbusState.INIT_WAIT, offer)

    def _connect(self, vif: Vif) -> None:
        """The frontend has said all: check it, map its rings by grant, and let it take part."""
        backend = vif.backend
        said = backend.frontend
        if backend.memory is None:
            raise ProtocolError("a frontend has handed over no memory")
        if number(said, keys.KEY_REQUEST_RX_COPY) != 1 or number(said, keys.KEY_NUM_QUEUES, 1) != 1:
            raise ProtocolError("only the copying receive path and one queue are offered")
        headroom = number(said, keys.KEY_XDP_HEADROOM, 0)
        tx = backend.channels.get(number(said, keys.KEY_EVENT_CHANNEL_TX))
        rx = backend.channels.get(number(said, keys.KEY_EVENT_CHANNEL_RX))
        if headroom > MAX_HEADROOM or tx is None or rx is None:
            raise ProtocolError("a frontend named no event channels of its own, or too much headroom")
        slot = self._layer.free_number()
        if slot is None:
            raise ProtocolError("the layer has no vif left")
        vif.number = slot
        vif.ring_refs = (number(said, keys.KEY_TX_RING_REF), number(said, keys.KEY_RX_RING_REF))
        record, domain = self._layer.records(slot)
        record.fill(0)
        domain.fill(0)
        domain.arena = backend.memory.address
        domain.pages = backend.memory.size // PAGE_BYTES
        domain.table = backend.memory.address + backend.grant_frame * PAGE_BYTES
        domain.entries = backend.grant_frames * ENTRIES_PER_PAGE
        domain.grantee = DOMID_0
        record.headroom = headroom
        record.tx_event = tx.notify_fd
        record.rx_event = rx.notify_fd
        if self._layer.map_rings(slot, vif.ring_refs) != 0:
            raise ProtocolError("a frontend's ring pages are not granted")
        vif.attached = True
        self._layer.attach(vif)

    def _drop_stopped(self) -> None:
        """Frontends that broke the ring's rules were stopped by the loop; here they are told, and go."""
        stopped = dict(self._layer.stopped_vifs())
        for vif in [vif for vif in self._vifs.values() if vif.attached and vif.number in stopped]:
            vif.backend.fail(STOP_REASONS[stopped[vif.number]])
            self._remove(vif.backend)

    def _unblock(self) -> None:
        """A guest can make its eventfd block (it shares the descriptor's flags) and fill it: then the loop
        hangs in the write that would wake that guest. Empty those eventfds when the loop stands still while
        not asleep.
        """
        seen = (self._layer.rounds, self._layer.asleep)
        if seen == self._loop_seen and not self._layer.asleep:
            for vif in self._vifs.values():
                for channel in vif.backend.channels.values():
                    channel.free_writer()
        self._loop_seen = seen
