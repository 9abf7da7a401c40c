"""A virtualization layer on the host's own function of a card, with the function's interrupt to wake it."""

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any, Self

from vfwire.bus.vfio_user.client import VfioUserFunction
from vfwire.drivers.function_driver import RING_SIZE, FunctionDriver
from vfwire.drivers.table import open_driver
from vfwire.drivers.verbs import Pool
from vfwire.errors import PeerGone, UsageError
from vfwire.paths.layer import VirtualizationLayer

_WATCH_SECONDS = 0.5


class UplinkedLayer:
    """A layer that listens at `listen`, on the card's function behind the socket `function`.

    cap_bps: of what its frontends send, None when lifted. Raises as the driver and the layer do, and UsageError for
    a function that is not the host's: a VF hears only its own MAC address.
    """

    def __init__(
        self, function: Path, listen: Path, cap_bps: float | None, ring_size: int = RING_SIZE
    ) -> None:
        self._pool = Pool()
        self._nic: FunctionDriver | None = None
        self._failure: PeerGone | None = None
        self._end = threading.Event()
        try:
            nic = open_driver(VfioUserFunction(function), self._pool, ring_size=ring_size, vlan_strip=False)
            self._nic = nic
            if not nic.hear_everything():
                raise UsageError(
                    f"{function} is not the host's function of its card",
                    "run vfwire card with --host-function",
                )
            self.layer = VirtualizationLayer(
                listen,
                nic,
                cap_bps,
                uplink_event=nic.enable_receive_events(),
                uplink_arm=nic.arm_receive_events,
            )
        except BaseException:
            self.close()
            raise

    def run(self, on_ready: Callable[[], None] | None = None) -> None:
        """Serve until `stop`. Raises PeerGone when the card goes, and as VirtualizationLayer.run does."""
        watch = threading.Thread(target=self._watch, name="vfwire-uplink", daemon=True)
        watch.start()
        try:
            self.layer.run(on_ready)
        except PeerGone as error:
            self._failure = error
        finally:
            self._end.set()
            watch.join()
        if self._failure is not None:
            raise self._failure

    def _watch(self) -> None:
        """A card that has gone raises no interrupt any more: ask for it."""
        assert self._nic is not None
        while not self._end.wait(_WATCH_SECONDS):
            try:
                self._nic.check()
            except PeerGone as error:
                self._failure = error
                self.layer.stop()
                return

    def stop(self) -> None:
        """Let `run` return. From any thread or a signal handler."""
        self.layer.stop()

    def stats(self) -> dict[str, Any]:
        return self.layer.stats()

    def close(self) -> None:
        """Give the function back. Safe to call twice."""
        if self._nic is not None:
            self._nic.close()
        self._pool.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
