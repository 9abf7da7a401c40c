"""Which driver a PCI function takes, by its vendor and device IDs. A newcomer's is one more row."""

from typing import Any

from vfwire.drivers.ena import Ena
from vfwire.drivers.function_driver import FunctionDriver, closing_on_error, identity_of
from vfwire.drivers.ixgbevf import Ixgbevf
from vfwire.drivers.verbs import Pool
from vfwire.errors import UnsupportedMachine
from vfwire.pci.function import Function

DRIVERS: tuple[type[FunctionDriver], ...] = (Ixgbevf, Ena)


def driver_of(function: Function) -> type[FunctionDriver]:
    """The driver for this function. Raises UnsupportedMachine, and closes the function, where there is none."""
    with closing_on_error(function):
        identity = identity_of(function)
        for driver in DRIVERS:
            if identity in driver.pci_ids:
                return driver
        known = ", ".join(f"{driver.device} ({driver.name})" for driver in DRIVERS)
        raise UnsupportedMachine(
            f"{function.name} is {identity[0]:04x}:{identity[1]:04x}, and no driver is for that",
            f"there are drivers for {known}",
        )


def open_driver(function: Function, pool: Pool, **options: Any) -> FunctionDriver:
    """The function's driver, compiled and started: `options` as its `open` has them. Raises as that does."""
    driver = driver_of(function)
    with closing_on_error(function):
        driver.warm_up()
    return driver.open(function, pool, **options)
