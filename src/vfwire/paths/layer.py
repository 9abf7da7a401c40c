"""A host's virtualization layer: netback, a learning bridge, and the host's own port on the card.

Two threads. The one that calls `run` moves frames: compiled slices without the GIL, and sleep when there is
nothing to do. The other one talks xenbus with frontends (paths/vifs.py); what it wants done to the tables of
the first it hands over as a call, and waits.
"""

import contextlib
import os
import secrets
import threading
import time
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Any

from vfwire.bus.xen.backend import Listener
from vfwire.bus.xen.events import EdgeWaiter
from vfwire.datapath import netback, netback_vif
from vfwire.datapath.netback_state import (
    DROP_CAUSES,
    FREE,
    MAX_VIFS,
    RUNNING,
    VIF,
    Host,
    count_vifs,
    new_host,
)
from vfwire.drivers.netfront import Netfront
from vfwire.drivers.verbs import Driver, Pool
from vfwire.errors import UsageError, WaitTimeout
from vfwire.layouts.ethernet import ETHERNET_BYTES, STANDARD_MTU, VLAN_BYTES
from vfwire.paths.vifs import Vif, VifControl

DEFAULT_CAP_BPS = 5e9
SLICE_NS = 20_000_000  # how long signals may wait for Python while there is traffic
SPIN_NS = 200_000  # how long an idle layer looks before it sleeps, giving its core away meanwhile
# the longest sleep where the uplink has no interrupt: what a frame may wait for a sleeping layer
BLIND_NS = 200_000
XEN_OUI = bytes((0x00, 0x16, 0x3E))

_COUNTERS = ("tx_frames", "tx_bytes", "rx_frames", "rx_bytes", "notified", "woken")


def _slice(host: Host, until_ns: int, spin_ns: int) -> int:
    return int(
        netback.run_slice(
            host.layer,
            host.pool,
            host.stack,
            host.uplink_rx,
            host.uplink_tx,
            host.arrived,
            host.staged,
            until_ns,
            spin_ns,
        )
    )


class VirtualizationLayer:
    """`run` it in a process of its own; `stop` and `stats` may be called from any thread.

    listen: the socket that netfronts connect to, made private to its owner.
    uplink: the host's own port on the card, started; its MTU is the bridge's. It must hear frames for the
    vifs' MAC addresses (`macs`), and hand over and take VLAN tags in the frame. None: a bridge of vifs alone.
    cap_bps: what vifs together may send, in bits/s as Ethernet counts (with FCS, preamble and gap), as the
    `rate` of a
    Xen vif limits what a guest sends: frames wait in their rings for credit, none is dropped. None lifts it.
    uplink_event, uplink_arm: the eventfd of the uplink's interrupt, and what enables that interrupt before a
    sleep. Without them a sleep lasts at most 200 microseconds.
    learning: False makes the bridge a hub (`bridge link set … learning off`), so that one vif can send frames of many
    stations, both ends of a conversation among them.
    """

    def __init__(
        self,
        listen: Path,
        uplink: Driver | None,
        cap_bps: float | None = DEFAULT_CAP_BPS,
        *,
        uplink_event: int | None = None,
        uplink_arm: Callable[[], None] | None = None,
        spin_ns: int = SPIN_NS,
        learning: bool = True,
    ) -> None:
        if cap_bps is not None and not 1e3 <= cap_bps <= 1e12:
            raise UsageError("a cap is from 1 kbps to 1 Tbps", "lift it with None")
        self.listen = listen
        self._own_pool = Pool(4096, 2048) if uplink is None else None
        pool = self._own_pool if uplink is None else uplink.pool
        assert pool is not None
        self._host = new_host(
            uplink.rx if uplink else None, uplink.tx if uplink else None, pool.words, pool.stack
        )
        self.mtu = uplink.mtu if uplink else STANDARD_MTU
        words = self._host.layer[0]
        words.max_frame = min(self.mtu + ETHERNET_BYTES + VLAN_BYTES, pool.buffer_bytes)
        words.learning = int(learning)
        words.rate_bps = 0 if cap_bps is None else int(cap_bps)
        words.credit_ns = time.monotonic_ns()
        self._uplink_event = uplink_event
        self._uplink_arm = uplink_arm
        self._timeout = BLIND_NS if uplink is not None and uplink_event is None else None
        self._spin_ns = spin_ns
        self._calls: deque[tuple[Callable[[], None], threading.Event]] = deque()
        self._stopping = False
        self._finished = threading.Event()
        self._wake_fd = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self._wake_lock = threading.RLock()  # `stop` may come from a thread while `run` closes
        self._events = EdgeWaiter()
        self._vif_of_fd: dict[int, int] = {}
        self._gone = dict.fromkeys(_COUNTERS, 0)
        self._sleeps = 0
        self._uplink_events = 0
        self._asleep = False
        self._cpu = 0.0
        self._macs: dict[int, bytes] = {}

    def run(self, on_ready: Callable[[], None] | None = None) -> None:
        """Serve until `stop`. `on_ready` is called when netfronts can connect: all is compiled by then.

        Raises ResourceBusy, PermissionDenied or UsageError when it cannot listen.
        """
        try:
            self.warm_up()
            with contextlib.closing(Listener(self.listen)) as listener:
                self._serve(listener, on_ready)
        finally:
            self.close()

    def _serve(self, listener: Listener, on_ready: Callable[[], None] | None) -> None:
        self._events.add(self._wake_fd)
        if self._uplink_event is not None:
            self._events.add(self._uplink_event)
        control = VifControl(self, listener)
        control.start()
        try:
            if on_ready is not None:
                on_ready()
            self._work()
        finally:
            self._finished.set()
            self._run_calls()
            control.stop()
            self._run_calls()

    def close(self) -> None:
        """Let go of what a layer has before it runs; `run` does so itself at its end. Safe to call twice."""
        with self._wake_lock:
            if self._wake_fd < 0:
                return
            os.close(self._wake_fd)
            self._wake_fd = -1
        self._events.close()
        if self._own_pool is not None:
            self._own_pool.close()

    def stop(self) -> None:
        """Let `run` return, soon: it says goodbye to its netfronts first."""
        self._stopping = True
        self._interrupt()

    @staticmethod
    def warm_up(progress: Callable[[str], None] | None = None) -> None:
        """Compile netback and netfront, or load them from the cache, before anybody waits. `progress`: told what."""
        if progress is not None:
            progress("the virtualization layer")
        Netfront.warm_up()
        with Pool(1) as pool:
            host = new_host(None, None, pool.words, pool.stack)
            _slice(host, 0, 0)
            netback.arm_events(host.layer)
            netback_vif.map_rings(host.layer, 0, 0, 0)
            netback_vif.detach_vif(host.layer, 0, 0, 0)

    def _interrupt(self) -> None:
        """Bring the working thread back to Python, awake."""
        self._host.own[self._stop_index] = 1
        with self._wake_lock:
            if self._wake_fd >= 0:
                os.eventfd_write(self._wake_fd, 1)

    @property
    def _stop_index(self) -> int:
        return int(self._host.layer[0].stop_word) - int(self._host.own.ctypes.data)

    def _work(self) -> None:
        host = self._host
        while not self._stopping:
            code = _slice(self._host, time.monotonic_ns() + SLICE_NS, self._spin_ns)
            if code == netback.IDLE:
                code = self._sleep()
            if code == netback.WANTED:
                self._host.own[self._stop_index] = 0
            elif code == netback.VIF_STOPPED:
                host.layer[0].stopped = 0
            self._run_calls()
            self._cpu = time.thread_time()

    def _sleep(self) -> int:
        """Ask everybody for an event, look once more, then sleep. Returns what that look came back with."""
        netback.arm_events(self._host.layer)
        if self._uplink_arm is not None:
            self._uplink_arm()
        code = _slice(self._host, 0, 0)
        if code != netback.IDLE:
            return code
        self._sleeps += 1
        self._asleep = True
        for fd in self._events.wait(self._timeout):
            if fd == self._uplink_event:
                self._uplink_events += 1
            elif fd in self._vif_of_fd:
                self._host.vifs[self._vif_of_fd[fd]].woken += 1
        self._asleep = False
        return netback.AGAIN

    def _run_calls(self) -> None:
        while self._calls:
            call, done = self._calls.popleft()
            call()
            done.set()

    def call_in_loop(self, call: Callable[[], None]) -> None:
        """Have the working thread run `call` between two slices; returns when it has. Raises WaitTimeout."""
        done = threading.Event()
        self._calls.append((call, done))
        self._interrupt()
        if self._finished.is_set():
            self._run_calls()
        if not done.wait(10.0):
            raise WaitTimeout("the layer's loop did not come back within 10 s")

    def attach(self, vif: Vif) -> None:
        """A vif whose rings are mapped takes part from now on."""

        def begin() -> None:
            for channel in vif.backend.channels.values():
                self._events.add(channel.wait_fd)
                self._vif_of_fd[channel.wait_fd] = vif.number
            self._macs[vif.number] = vif.mac
            self._host.vifs[vif.number].state = RUNNING
            count_vifs(self._host)

        self.call_in_loop(begin)

    def detach(self, vif: Vif) -> None:
        """The loop has let go of a vif, its memory and its descriptors when this returns."""

        def end() -> None:
            host = self._host
            record = host.vifs[vif.number]
            for channel in vif.backend.channels.values():
                if self._vif_of_fd.pop(channel.wait_fd, None) is not None:
                    self._events.remove(channel.wait_fd)
            self._macs.pop(vif.number, None)
            netback_vif.detach_vif(host.layer, vif.number, *vif.ring_refs)
            for name in _COUNTERS:
                self._gone[name] += int(record[name])
                record[name] = 0
            count_vifs(host)

        self.call_in_loop(end)

    def map_rings(self, number: int, refs: tuple[int, int]) -> int:
        """Map the rings of a vif that does not run yet; 0, or the GNTST_* of the one that is refused."""
        return int(netback_vif.map_rings(self._host.layer, number, *refs))

    def records(self, number: int) -> tuple[Any, Any]:
        """(VIF, DOMAIN) of a vif that does not run, to be filled in."""
        return self._host.vifs[number], self._host.domains[number]

    def free_number(self) -> int | None:
        """A vif number that nobody has."""
        free = [v for v in range(MAX_VIFS) if self._host.vifs[v].state == FREE and v not in self._macs]
        return free[0] if free else None

    def choose_mac(self, wish: bytes | None) -> bytes:
        """The MAC of a new vif: what it asked for, if nobody here has it, else one of Xen's own range."""
        taken = set(self._macs.values())
        while wish is None or wish in taken:
            wish = XEN_OUI + bytes((secrets.randbelow(128),)) + secrets.token_bytes(2)
        return wish

    def stopped_vifs(self) -> list[tuple[int, int]]:
        """(number, reason) of the vifs that broke the protocol and wait to be detached."""
        vifs = self._host.vifs
        return [(v, int(vifs[v].reason)) for v in self._macs if vifs[v].state not in (FREE, RUNNING)]

    @property
    def macs(self) -> list[bytes]:
        """The MAC addresses of the vifs here: what the uplink must hear."""
        return list(self._macs.values())

    @property
    def rounds(self) -> int:
        return int(self._host.layer[0].rounds)

    @property
    def asleep(self) -> bool:
        return self._asleep

    def stats(self) -> dict[str, Any]:
        """Counters since the start: frames and bytes (without FCS) by direction, drops by cause, what it
        cost.
        """
        host, layer = self._host, self._host.layer[0]
        totals = {name: self._gone[name] + int(host.vifs[name].sum()) for name in _COUNTERS}
        drops = host.drops.sum(axis=0)
        return {
            "vifs": len(self._macs),
            "from_vifs_frames": totals["tx_frames"],
            "from_vifs_bytes": totals["tx_bytes"],
            "to_vifs_frames": totals["rx_frames"],
            "to_vifs_bytes": totals["rx_bytes"],
            "from_uplink_frames": int(layer.uplink_rx_frames),
            "from_uplink_bytes": int(layer.uplink_rx_bytes),
            "to_uplink_frames": int(layer.uplink_tx_frames),
            "to_uplink_bytes": int(layer.uplink_tx_bytes),
            "copied_bytes": int(layer.copied_bytes),
            "notifications_sent": totals["notified"],
            "notifications_received": totals["woken"],
            "uplink_interrupts": self._uplink_events,
            "sleeps": self._sleeps,
            "rounds": int(layer.rounds),
            "idle_rounds": int(layer.idle_rounds),
            "credit_waits": int(layer.credit_waits),
            "grants_refused": int(host.domains["refused"].sum()),
            "drops": {cause: int(drops[i]) for i, cause in enumerate(DROP_CAUSES) if drops[i]},
            "cpu_seconds": self._cpu,
        }


assert set(_COUNTERS) <= set(VIF.names or ())
