"""The exporter: names as node_exporter has them, text that Prometheus reads, a server that ends."""

import urllib.request
from pathlib import Path

import pytest
from host_tree import HostTree
from prometheus_client.parser import text_string_to_metric_families

from vfwire.checks.exporter import Collector, metric_name, serve
from vfwire.checks.host import HostReport, check_host
from vfwire.checks.tree import Tree
from vfwire.errors import ResourceBusy, UsageError

# TestBuildEthtoolFQName and the fixtures in node_exporter's collector/ethtool_linux_test.go, and its table of entries.
NODE_EXPORTERS = {
    "port.rx_errors": "node_ethtool_port_received_errors",
    "Queue[0] AllocFails": "node_ethtool_queue_0_allocfails",
    "Tx LPI entry count": "node_ethtool_transmitted_lpi_entry_count",
    "port.VF_admin_queue_requests": "node_ethtool_port_vf_admin_queue_requests",
    "[3]: tx_bytes": "node_ethtool_3_transmitted_bytes",
    "     err": "node_ethtool_err",
    "align_errors": "node_ethtool_align_errors",
    "port_rx_dropped": "node_ethtool_port_received_dropped",
    "rx_errors": "node_ethtool_received_errors_total",
    "rx_packets": "node_ethtool_received_packets_total",
    "rx_bytes": "node_ethtool_received_bytes_total",
    "rx_dropped": "node_ethtool_received_dropped_total",
    "tx_bytes": "node_ethtool_transmitted_bytes_total",
    "tx_errors": "node_ethtool_transmitted_errors_total",
    "tx_packets": "node_ethtool_transmitted_packets_total",
    "bw_in_allowance_exceeded": "node_ethtool_bw_in_allowance_exceeded",
}


@pytest.mark.parametrize("counter", NODE_EXPORTERS)
def test_a_name_is_node_exporters(counter: str) -> None:
    assert metric_name(counter) == NODE_EXPORTERS[counter]


@pytest.fixture
def xen_host(tmp_path: Path) -> Tree:
    host = HostTree(tmp_path)
    host.interface("eth0", host.device("xen", "vif-0"))
    return Tree(tmp_path)


def test_a_scrape_is_what_prometheus_reads() -> None:
    def look() -> HostReport:
        return check_host(Tree(), ["lo"])

    server, thread = serve(look, "127.0.0.1", 0)
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{server.server_port}/metrics", timeout=30) as answer:
            families = {one.name: one for one in text_string_to_metric_families(answer.read().decode())}
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
    assert families["node_ethtool_info"].type == "gauge"
    assert families["vfwire_enhanced_networking"].samples == []  # what loopback is nobody can tell


def test_the_verdict_is_a_gauge(xen_host: Tree) -> None:
    families = {one.name: one for one in Collector(lambda: check_host(xen_host)).collect()}
    (sample,) = families["vfwire_enhanced_networking"].samples
    assert sample.labels == {"device": "eth0", "mechanism": "vif"} and sample.value == 0


def test_an_interface_that_has_gone_leaves_nothing_to_tell(xen_host: Tree) -> None:
    assert list(Collector(lambda: check_host(xen_host, ["eth9"])).collect()) == []


def test_a_port_that_is_taken_and_an_address_that_is_not_here(xen_host: Tree) -> None:
    server, thread = serve(lambda: check_host(xen_host), "127.0.0.1", 0)
    try:
        with pytest.raises(ResourceBusy, match="is taken"):
            serve(lambda: check_host(xen_host), "127.0.0.1", server.server_port)
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
    with pytest.raises(UsageError, match="cannot be served"):
        serve(lambda: check_host(xen_host), "192.0.2.1", 0)
