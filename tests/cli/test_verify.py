"""`vfwire verify` as a user meets it, on real interfaces: what it says beside ethtool, its exit codes, its ends."""

import json
import signal
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from command_kit import SECONDS, VFWIRE, started, vfwire

from vfwire import cli

BARE = ("setpriv", "--inh-caps=-all", "--bounding-set=-all")


@pytest.fixture
def links(netns_pair: tuple[str, str]) -> str:
    """A namespace with a veth (its other end in the other one), a bridge over a second veth, a macvlan and a tap."""
    here, there = netns_pair
    for words in (
        f"-n {here} link add veth0 type veth peer name peer0 netns {there}",
        f"-n {here} link add veth1 type veth peer name peer1 netns {there}",
        f"-n {here} link add br0 type bridge",
        f"-n {here} link set veth1 master br0",
        f"-n {here} link add link veth0 name mv0 type macvlan",
        f"-n {here} tuntap add tap0 mode tap",
        f"-n {here} link property add dev veth0 altname the-long-name-of-veth0",
    ):
        subprocess.run(["ip", *words.split()], check=True)
    return here


def inside(namespace: str, *arguments: object) -> subprocess.CompletedProcess[str]:
    return vfwire("verify", *arguments, before=("ip", "netns", "exec", namespace))


@pytest.mark.parametrize(
    ("name", "mechanism", "code"),
    [("veth0", "veth", 3), ("br0", "bridge", 3), ("mv0", "macvlan", 3), ("tap0", "tap", 1)],
)
def test_it_says_what_ethtool_says_of_a_real_interface(
    links: str, name: str, mechanism: str, code: int
) -> None:
    done = inside(links, name)
    asked = ["ip", "netns", "exec", links, "ethtool", "-i", name]
    witness = subprocess.run(asked, capture_output=True, text=True, check=True).stdout
    assert done.returncode == code, done.stderr
    assert f"\n{witness}" in done.stdout
    told = json.loads(inside(links, name, "--json").stdout)
    (one,) = told["interfaces"]
    assert (one["name"], one["mechanism"], told["schema"]) == (name, mechanism, 1)
    assert told["verdict"] == {1: "not", 3: "unknown"}[code] and told["reason"] and told["next_step"]


def test_features_queues_and_counters_are_ethtools(links: str) -> None:
    (one,) = json.loads(inside(links, "veth0", "--json").stdout)["interfaces"]
    ethtool = ["ip", "netns", "exec", links, "ethtool", "--json"]
    shown = json.loads(subprocess.run([*ethtool, "-k", "veth0"], capture_output=True, check=True).stdout)[0]
    same = {name: state["active"] for name, state in shown.items() if name in one["features"]}
    assert len(same) > 30 and same == {name: one["features"][name] for name in same}
    plain = subprocess.run([*ethtool[:-1], "-S", "veth0"], capture_output=True, text=True, check=True).stdout
    names = [line.split(":")[0].strip() for line in plain.splitlines()[1:]]
    assert list(one["counters"]) == names and "peer_ifindex" in names
    assert one["channels"]["rx"][0] >= 1


def test_another_name_of_an_interface_will_do(links: str) -> None:
    (one,) = json.loads(inside(links, "the-long-name-of-veth0", "--json").stdout)["interfaces"]
    assert one["name"] == "veth0" and one["other_names"] == ["the-long-name-of-veth0"]


def test_a_sysfs_of_another_namespace_does_not_mislead(links: str) -> None:
    """nsenter enters the network namespace only: /sys/class/net still shows the one before."""
    where = f"--net=/run/netns/{links}"
    done = vfwire("verify", "veth0", "tap0", "--json", before=("nsenter", where))
    assert [one["mechanism"] for one in json.loads(done.stdout)["interfaces"]] == ["veth", "tap"]
    assert done.returncode == 1


def test_a_namespace_of_virtual_interfaces_cannot_tell(links: str) -> None:
    done = inside(links)
    assert done.returncode == 3 and "no physical interface can be seen from here, only " in done.stdout
    assert "next step: run it on the host" in done.stdout


def test_no_such_interface_names_the_nearest(links: str) -> None:
    done = inside(links, "vet0")
    assert done.returncode == 2 and done.stdout == ""
    assert "there is no interface 'vet0'; there are: veth0, veth1, " in done.stderr


def test_it_needs_no_privilege(links: str) -> None:
    command = ["ip", "netns", "exec", links, *BARE, *VFWIRE, "verify", "veth0", "--json"]
    bare = subprocess.run(command, capture_output=True, text=True, check=False, timeout=SECONDS)
    privileged = inside(links, "veth0", "--json")

    def told(text: str) -> Any:
        (one,) = json.loads(text)["interfaces"]
        return {key: value for key, value in one.items() if key not in ("counters", "counters_at")}

    assert bare.returncode == 3 and told(bare.stdout) == told(privileged.stdout)


@pytest.fixture
def card(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The socket of a running card's VF."""
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    with started("card", "--vfs", 1, "--json", lines=1) as (_, (line,)):
        yield json.loads(line)["vfs"][0]["socket"]


def test_a_cards_vf_on_a_tap_is_a_tap(card: str, netns_pair: tuple[str, str]) -> None:
    """The kernel sees the tap only: that a VF is behind it does not take the program off the path."""
    with started("attach", card, "--tap", "vf0", "--netns", netns_pair[0], lines=2):
        done = inside(netns_pair[0], "vf0", "--json")
    told = json.loads(done.stdout)
    assert done.returncode == 1 and told["interfaces"][0]["mechanism"] == "tap"
    assert told["interfaces"][0]["driver"] == "tun" and "use the VF itself" in told["next_step"]


def test_watching_tells_a_line_a_look_and_ends(links: str) -> None:
    done = inside(links, "tap0", "--watch", "--sample", "0.05", "--count", "3", "--json")
    times = [json.loads(line)["interfaces"][0]["counters_at"] for line in done.stdout.splitlines()]
    assert done.returncode == 1 and len(times) == 3
    assert times[0] + 0.05 <= times[1] and times[1] + 0.05 <= times[2]


def test_watching_ends_by_a_signal_with_the_last_verdict() -> None:
    with started("verify", "lo", "--watch", "--sample", "0.05", "--json", lines=2) as (process, _):
        process.send_signal(signal.SIGINT)
        assert process.stdout is not None
        process.stdout.read()
        assert process.wait(SECONDS) == 3


def test_prometheus_is_served_until_it_is_stopped() -> None:
    with started("verify", "lo", "--prometheus", "0", lines=1) as (process, (line,)):
        with urllib.request.urlopen(line.strip(), timeout=SECONDS) as answer:
            assert b"# TYPE vfwire_enhanced_networking gauge" in answer.read()
        process.send_signal(signal.SIGTERM)
        assert process.wait(SECONDS) == 3


def test_what_cannot_be_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    wrong: list[tuple[tuple[str, ...], str]] = [
        (("--sample", "0"), "no time between two readings"),
        (("--sample", "nan"), "no time between two readings"),
        (("--count", "3"), "--watch"),
        (("--watch", "--count", "0"), "at least 1"),
        (("--prometheus", "99999"), "no port"),
        (("--prometheus", "web"), "no port"),
        (("--prometheus", "0", "--json"), "leave"),
        (("--root", str(tmp_path), "--watch"), "a copy does not change"),
        (("--root", str(tmp_path / "none")), "does not exist"),
        (("no/such",), "there is no interface"),
    ]
    for arguments, cause in wrong:
        assert cli.run(["verify", *arguments]) == 2, arguments
        out, err = capsys.readouterr()
        assert out == "" and len(err.splitlines()) == 1 and cause in err, (arguments, err)


def test_only_what_is_used_is_imported() -> None:
    """The loops' compiler and the web server take longer to import than the whole answer may."""
    script = (
        "import sys\nfrom vfwire.cli import run\nrun(['verify', 'lo', '--json'])\n"
        "print(sorted({'numba', 'numpy', 'rich', 'prometheus_client', 'boto3'} & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=SECONDS
    )
    assert done.stdout.splitlines()[-1] == "[]"
