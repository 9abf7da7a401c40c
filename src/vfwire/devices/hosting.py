"""A card's functions on sockets: one vfio-user server each, in the card's run directory, and what QEMU has to
be told.
"""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from vfwire.bus.vfio_user.server import Server
from vfwire.devices.card import Card
from vfwire.devices.dma_maps import allow_descriptors
from vfwire.devices.run_directory import vf_socket
from vfwire.pci.endpoint import Endpoint

QEMU_MEMORY = (
    "-object memory-backend-memfd,id=mem,size=512M,share=on -machine memory-backend=mem  (size as -m)"
)


def qemu_option(path: Path) -> str:
    """The option that attaches a function (QEMU 10.1 and later)."""
    device = {"driver": "vfio-user-pci", "socket": {"type": "unix", "path": str(path)}}
    return f"-device '{json.dumps(device, separators=(',', ':'))}'"


class HostedCard:
    """Serves every function of `card` in `directory`. mode: the permissions of the sockets. wrap: what is
    served in a function's place (devices/trace.py).

    Raises ResourceBusy, PermissionDenied, UsageError; whatever was started by then is stopped again.
    """

    def __init__(
        self,
        card: Card,
        directory: Path,
        *,
        mode: int = 0o600,
        wrap: Callable[[Any], Endpoint] | None = None,
    ) -> None:
        self.card = card
        self.directory = directory
        self.servers: list[Server] = []
        allow_descriptors()
        try:
            for function in card.functions:
                path = self.socket(function.port.pool if not function.port.host else "host")
                server = Server(wrap(function) if wrap else function, path, mode=mode)
                server.start()
                self.servers.append(server)
        except BaseException:
            self.close()
            raise

    def socket(self, index: int | str) -> Path:
        return vf_socket(self.directory, index)

    def describe(self) -> dict[str, Any]:
        """What `Card.describe` tells, with the sockets and QEMU options."""
        described = self.card.describe()
        for vf in described["vfs"]:
            path = self.socket(vf["vf"])
            vf["socket"] = str(path)
            vf["qemu"] = qemu_option(path)
        described["directory"] = str(self.directory)
        described["qemu_memory"] = QEMU_MEMORY
        return described

    def counters(self) -> dict[str, Any]:
        counted = self.card.counters()
        for server, vf in zip(self.servers, counted["vfs"].values(), strict=True):
            vf["protocol_errors"] = server.errors
        return counted

    def close(self) -> None:
        """Disconnect everybody and remove the sockets. Safe to call twice."""
        servers, self.servers = self.servers, []
        for server in servers:
            server.stop()
