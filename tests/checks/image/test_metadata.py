"""The instance metadata service as a client meets it: tokens first, then paths."""

import json
import threading
from collections.abc import Iterator
from http.client import HTTPConnection
from ipaddress import IPv4Address, IPv4Network

import pytest

from vfwire.checks.image.dhcp import Subnet
from vfwire.checks.image.metadata import MetadataServer, Tokens, instance_metadata, look_up

SUBNET = Subnet(IPv4Network("172.31.16.0/20"), IPv4Address("172.31.17.5"))
MAC = "02:00:00:00:00:07"
TREE = instance_metadata(SUBNET, MAC, "c5.large", "ssh-ed25519 AAAA me")
TTL, TOKEN = "X-aws-ec2-metadata-token-ttl-seconds", "X-aws-ec2-metadata-token"
Asked = list[tuple[str, str, int]]


@pytest.fixture
def service() -> Iterator[tuple[int, Asked]]:
    asked: Asked = []
    server = MetadataServer(TREE, lambda *request: asked.append(request), ("127.0.0.1", 0))
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield server.server_address[1], asked
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def ask(port: int, method: str, path: str, **headers: str) -> tuple[int, str]:
    connection = HTTPConnection("127.0.0.1", port, timeout=10)
    try:
        connection.request(
            method, path, headers={name.replace("_", "-"): text for name, text in headers.items()}
        )
        answer = connection.getresponse()
        return answer.status, answer.read().decode()
    finally:
        connection.close()


def token(port: int) -> str:
    status, text = ask(port, "PUT", "/latest/api/token", **{TTL: "60"})
    assert status == 200
    return text


def test_a_token_opens_what_is_closed_without_one(service: tuple[int, Asked]) -> None:
    port, asked = service
    path = "/latest/meta-data/instance-id"
    assert ask(port, "GET", path)[0] == 401
    assert ask(port, "GET", path, **{TOKEN: "guessed"})[0] == 401
    assert ask(port, "GET", path, **{TOKEN: token(port)}) == (200, "i-0123456789abcdef0")
    assert [(method, status) for method, _, status in asked] == [
        ("GET", 401), ("GET", 401), ("PUT", 200), ("GET", 200),
    ]  # fmt: skip


@pytest.mark.parametrize("ttl", ["0", "21601", "-1", "x", "9" * 5000])
def test_a_time_to_live_has_limits(service: tuple[int, Asked], ttl: str) -> None:
    assert ask(service[0], "PUT", "/latest/api/token", **{TTL: ttl})[0] == 400
    assert ask(service[0], "PUT", "/latest/api/token")[0] == 400
    assert ask(service[0], "PUT", "/elsewhere", **{TTL: "60"})[0] == 404


def test_everything_that_cloud_init_crawls_is_there(service: tuple[int, Asked]) -> None:
    """A crawl as its EC2 data source does it: directories end with "/", keys are listed with their numbers."""
    port, _ = service
    held = token(port)

    def get(path: str) -> str:
        status, text = ask(port, "GET", path, **{TOKEN: held})
        assert status == 200, path
        return text

    assert "2021-03-23" in get("/").splitlines()
    names = get("/2021-03-23/meta-data/").splitlines()
    assert {"instance-id", "local-hostname", "network/", "placement/", "public-keys/", "services/"} <= set(
        names
    )
    assert get("/2021-03-23/meta-data/public-keys/") == "0=key-0"
    assert get("/latest/meta-data/public-keys/0/openssh-key") == "ssh-ed25519 AAAA me"
    assert get("/latest/meta-data/network/interfaces/macs/") == f"{MAC}/"
    assert get(f"/latest/meta-data/network/interfaces/macs/{MAC}/local-ipv4s") == "172.31.17.5"
    document = json.loads(get("/latest/dynamic/instance-identity/document"))
    assert document["instanceId"] == get("/latest/meta-data/instance-id")
    assert ask(port, "GET", "/latest/user-data", **{TOKEN: held})[0] == 404
    assert ask(port, "GET", "/2021-03-23x/meta-data/", **{TOKEN: held})[0] == 404
    assert ask(port, "GET", "/latest/meta-data/instance-id/more", **{TOKEN: held})[0] == 404


def test_no_key_no_keys() -> None:
    assert look_up(instance_metadata(SUBNET, MAC, "c5.large", None), "meta-data/public-keys/") is None


def test_tokens_are_bounded() -> None:
    tokens = Tokens()
    first = tokens.new("60")
    made = [tokens.new("60") for _ in range(2000)]
    assert tokens.holds(made[-1]) and not tokens.holds(first)
