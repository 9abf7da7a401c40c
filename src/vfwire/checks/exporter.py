"""The interfaces' counters for Prometheus, under the names that node_exporter's ethtool collector gives them.

Names and labels: prometheus/node_exporter `collector/ethtool_linux.go` (buildEthtoolFQName). Values are untyped, as
there: a driver does not tell which of its numbers are counters.
"""

import re
import threading
from collections.abc import Callable, Iterator
from wsgiref.simple_server import WSGIServer

from prometheus_client import CollectorRegistry, start_http_server
from prometheus_client.core import GaugeMetricFamily, Metric, UntypedMetricFamily

from vfwire.checks.ethtool import DriverInfo
from vfwire.checks.host import HostReport
from vfwire.checks.verdict import State
from vfwire.errors import PermissionDenied, ResourceBusy, UsageError, VfwireError

_PREFIX = "node_ethtool_"
_NAMED = {
    "rx_bytes": "received_bytes_total",
    "rx_dropped": "received_dropped_total",
    "rx_errors": "received_errors_total",
    "rx_packets": "received_packets_total",
    "tx_bytes": "transmitted_bytes_total",
    "tx_errors": "transmitted_errors_total",
    "tx_packets": "transmitted_packets_total",
}
_INFO_LABELS = ("bus_info", "device", "driver", "expansion_rom_version", "firmware_version", "version")


def metric_name(counter: str) -> str:
    """ "rx_bytes" gives node_ethtool_received_bytes_total, "queue_0_tx_cnt" node_ethtool_queue_0_transmitted_cnt."""
    if counter in _NAMED:
        return _PREFIX + _NAMED[counter]
    name = re.sub(r"_*[^0-9A-Za-z_]+_*", "_", counter).lower().lstrip("_")
    for short, long in (("rx", "received"), ("tx", "transmitted")):
        name = re.sub(rf"(^|_){short}(_|$)", rf"\1{long}\2", name)
    return _PREFIX + name


class Collector:
    """Looks anew each time it is asked. check: gives what there is to tell, a HostReport."""

    def __init__(self, check: Callable[[], HostReport]) -> None:
        self._check = check

    def collect(self) -> Iterator[Metric]:
        try:
            report = self._check()
        except VfwireError:  # an interface that was named has gone: nothing to tell until it is back
            return
        info = GaugeMetricFamily(
            f"{_PREFIX}info", "A constant 1, labeled by what ethtool -i tells.", labels=_INFO_LABELS
        )
        enhanced = GaugeMetricFamily(
            "vfwire_enhanced_networking",
            "1 if the interface is on it, 0 if not.",
            labels=("device", "mechanism"),
        )
        counted: dict[str, Metric] = {}
        for one in report.interfaces:
            name, driver = one.link.name, one.settings.driver_info
            if driver is not None:
                info.add_metric(_info_values(name, driver), 1)
            if one.verdict.state is not State.UNKNOWN:
                enhanced.add_metric((name, one.mechanism.name), float(one.verdict.state is State.ENHANCED))
            _add_counters(counted, name, one.settings.counters)
        yield info
        yield enhanced
        yield from counted.values()

    def describe(self) -> list[Metric]:
        """No metric is known before it is looked for."""
        return []


def _info_values(device: str, driver: DriverInfo) -> tuple[str, ...]:
    return (
        driver.bus_info,
        device,
        driver.driver,
        driver.expansion_rom_version,
        driver.firmware_version,
        driver.version,
    )


def _add_counters(counted: dict[str, Metric], device: str, counters: dict[str, int]) -> None:
    taken: set[str] = set()
    for counter, value in counters.items():
        name = metric_name(counter)
        if name in taken:  # two counters that differ in a dash only: the first has the name
            continue
        taken.add(name)
        if name not in counted:
            counted[name] = UntypedMetricFamily(name, f"Network interface {counter}", labels=("device",))
        counted[name].add_sample(name, {"device": device}, value)


def serve(check: Callable[[], HostReport], host: str, port: int) -> tuple[WSGIServer, threading.Thread]:
    """Serve http://host:port/metrics from a thread; port 0 takes a free one. Stop it by the server's shutdown().

    Raises ResourceBusy, PermissionDenied, UsageError (no such address here).
    """
    registry = CollectorRegistry(auto_describe=False)
    registry.register(Collector(check))
    try:
        server, thread = start_http_server(port, addr=host, registry=registry)
    except PermissionError as error:
        raise PermissionDenied(f"port {port} may not be taken", "use one from 1024 on") from error
    except OSError as error:
        if error.errno == 98:
            raise ResourceBusy(f"port {port} of {host} is taken", "give another one, or 0 for any") from error
        raise UsageError(
            f"{host}:{port} cannot be served: {error.strerror or error}", "give --prometheus PORT"
        ) from error
    return server, thread
