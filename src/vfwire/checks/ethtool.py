"""What `ethtool -i, -S, -l, -g, -k` and `ethtool DEVNAME` ask the kernel, by the same ioctl; all of it without root.

pyroute2 knows the ioctl and its structures, save ETHTOOL_GDRVINFO, which is added here (Linux
include/uapi/linux/ethtool.h, struct ethtool_drvinfo).
"""

import ctypes
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, TypeVar

from pyroute2.ethtool.ioctl import EthtoolError, IoctlEthtool

_ETHTOOL_GDRVINFO = 0x3
_SPEED_UNKNOWN = (0, 0xFFFF, 0xFFFFFFFF)
_DUPLEX = {0: "half", 1: "full"}
T = TypeVar("T")
N = TypeVar("N")


class _DrvInfo(ctypes.Structure):
    """196 bytes; strings end at their first zero."""

    _fields_ = (
        ("cmd", ctypes.c_uint32),
        ("driver", ctypes.c_char * 32),
        ("version", ctypes.c_char * 32),
        ("fw_version", ctypes.c_char * 32),
        ("bus_info", ctypes.c_char * 32),
        ("erom_version", ctypes.c_char * 32),
        ("reserved2", ctypes.c_char * 12),
        ("n_priv_flags", ctypes.c_uint32),
        ("n_stats", ctypes.c_uint32),
        ("testinfo_len", ctypes.c_uint32),
        ("eedump_len", ctypes.c_uint32),
        ("regdump_len", ctypes.c_uint32),
    )


@dataclass(frozen=True)
class DriverInfo:
    """What `ethtool -i` prints. Strings are as the driver has them, and may be empty."""

    driver: str
    version: str
    firmware_version: str
    expansion_rom_version: str
    bus_info: str
    supports: dict[str, bool]

    def lines(self) -> list[str]:
        """Line for line what `ethtool -i` prints."""
        return [
            f"driver: {self.driver}",
            f"version: {self.version}",
            f"firmware-version: {self.firmware_version}",
            f"expansion-rom-version: {self.expansion_rom_version}",
            f"bus-info: {self.bus_info}",
            *(f"supports-{name}: {'yes' if can else 'no'}" for name, can in self.supports.items()),
        ]


@dataclass(frozen=True)
class Settings:
    """What the kernel told of an interface. None, or nothing in it: its driver does not serve that question.

    channels: "rx", "tx", "other", "combined" to (now, at most). rings: "rx", "tx" to (now, at most), in descriptors.
    features: `ethtool -k`'s names to on or off. speed: Mbit/s. counters: `ethtool -S`, in its order. taken: when,
    on the monotonic clock, in seconds.
    """

    driver_info: DriverInfo | None = None
    channels: dict[str, tuple[int, int]] = field(default_factory=dict)
    rings: dict[str, tuple[int, int]] = field(default_factory=dict)
    features: dict[str, bool] = field(default_factory=dict)
    speed: int | None = None
    duplex: str | None = None
    counters: dict[str, int] = field(default_factory=dict)
    taken: float = 0.0


class Ethtool(IoctlEthtool):  # type: ignore[misc]
    """One socket to ask any interface of this network namespace by. A context manager.

    A question that the driver does not serve, and an interface that has just gone, are both no answer, not an error.
    """

    def ask(self, name: str) -> Settings:
        """All that is known of an interface."""
        self.change_ifname(name)
        told: tuple[int | None, str | None] | None = _answer(self._speed, None)
        speed, duplex = told or (None, None)
        return Settings(
            driver_info=_answer(self._driver_info, None),
            channels=_answer(self._channels, {}),
            rings=_answer(self._rings, {}),
            features=_answer(self._features, {}),
            speed=speed,
            duplex=duplex,
            counters=_answer(self._counters, {}),
            taken=time.monotonic(),
        )

    def _driver_info(self) -> DriverInfo:
        info = _DrvInfo(cmd=_ETHTOOL_GDRVINFO)
        self.ifreq.gstats = ctypes.cast(ctypes.byref(info), ctypes.POINTER(None))
        self.ioctl()
        return DriverInfo(
            driver=info.driver.decode(errors="replace"),
            version=info.version.decode(errors="replace"),
            firmware_version=info.fw_version.decode(errors="replace"),
            expansion_rom_version=info.erom_version.decode(errors="replace"),
            bus_info=info.bus_info.decode(errors="replace"),
            supports={
                "statistics": bool(info.n_stats),
                "test": bool(info.testinfo_len),
                "eeprom-access": bool(info.eedump_len),
                "register-dump": bool(info.regdump_len),
                "priv-flags": bool(info.n_priv_flags),
            },
        )

    def _channels(self) -> dict[str, tuple[int, int]]:
        told = self.get_channels()
        named = {
            name: (int(told[f"{name}_count"]), int(told[f"max_{name}"]))
            for name in ("rx", "tx", "other", "combined")
        }
        return {name: counts for name, counts in named.items() if counts[1]}

    def _rings(self) -> dict[str, tuple[int, int]]:
        told = self.get_rings()
        named = {name: (int(told[name]), int(told[f"{name}_max"])) for name in ("rx", "tx")}
        return {name: sizes for name, sizes in named.items() if sizes[1]}

    def _features(self) -> dict[str, bool]:
        return {name: bool(on) for name, on, *_ in self.get_features() if name}

    def _speed(self) -> tuple[int | None, str | None]:
        told: Any = self.get_link_settings()
        speed = int(told.speed)
        return None if speed in _SPEED_UNKNOWN else speed, _DUPLEX.get(told.duplex)

    def _counters(self) -> dict[str, int]:
        return {name: int(value) for name, value in self.get_statistics()}

    def __enter__(self) -> "Ethtool":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _answer(question: Callable[[], T], nothing: N) -> T | N:
    try:
        return question()
    except (EthtoolError, OSError):
        return nothing
