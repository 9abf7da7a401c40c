"""The rules, one by one and against each other: type x flags x guest x status check, to one verdict."""

from dataclasses import replace
from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vfwire.checks.ec2 import catalog
from vfwire.checks.ec2.facts import Guest, Image, Instance, Interface
from vfwire.checks.ec2.judge import RULES, Finding, judge, judge_image
from vfwire.checks.verdict import State

TYPES = catalog.shipped().types
PLAIN = Image("ami-0123456789abcdef0", "plain", False, False, "hvm", "ebs")


def instance(type_name: str, ena: bool = False, sriov: bool = False, **more: str) -> Instance:
    base = Instance(
        "i-0123456789abcdef0",
        type_name,
        "running",
        ena,
        sriov,
        "hvm",
        "ebs",
        PLAIN.id,
        windows=False,
        spot=False,
        group="",
        passing_ip="",
    )
    return replace(base, **more)  # type: ignore[arg-type]


def on(*drivers: str) -> Guest:
    return Guest(tuple(Interface(f"eth{number}", driver, "") for number, driver in enumerate(drivers)))


def found(one: Instance, guest: Guest = Guest(), reached: bool | None = None) -> Finding:  # noqa: B008
    return judge(one, TYPES.get(one.type), PLAIN, guest, reached)


@pytest.mark.parametrize(
    ("one", "guest", "reached", "rule", "state"),
    [
        # Flag and use are different things: what the guest says decides.
        (instance("r4.large", ena=True), on("ena"), None, "in-use", State.ENHANCED),
        (instance("r4.large", ena=True), on("vif"), None, "not-driven", State.NOT),
        (instance("r4.large"), on("vif"), None, "flag-off", State.NOT),
        (instance("c4.large", sriov=True), on("ixgbevf"), None, "in-use", State.ENHANCED),
        (instance("c4.large", sriov=True), on("ixgbevf", "vif"), None, "not-driven", State.NOT),
        (instance("c5.large", ena=True), on("ena", "ena"), None, "in-use", State.ENHANCED),
        (instance("c5.large", ena=True), on("e1000"), None, "not-seen", State.UNKNOWN),
        (instance("c5.large", ena=True), on(""), None, "not-seen", State.UNKNOWN),
        # The type decides which flag counts.
        (instance("c4.large", ena=True), Guest(), None, "flag-off", State.NOT),
        (instance("r4.large", sriov=True), Guest(), None, "flag-off", State.NOT),
        (instance("m4.16xlarge", sriov=True), Guest(), None, "flag-off", State.NOT),
        (instance("m4.10xlarge", sriov=True), Guest(), None, "not-seen", State.UNKNOWN),
        (instance("c4.large", ena=True, sriov=True), on("ixgbevf"), None, "in-use", State.ENHANCED),
        (instance("t2.micro", ena=True, sriov=True), Guest(), None, "type-has-none", State.NOT),
        # HVM only.
        (
            instance("c3.large", sriov=True, virtualization="paravirtual"),
            Guest(),
            None,
            "paravirtual",
            State.NOT,
        ),
        # Without a guest's word: Nitro has no other path, Xen has.
        (instance("c5.large", ena=True), Guest(), True, "only-path", State.ENHANCED),
        (instance("c5.large", ena=True), Guest(), False, "not-reached", State.UNKNOWN),
        (instance("c5.large", ena=True), Guest(), None, "not-seen", State.UNKNOWN),
        (instance("c5.metal", ena=True), Guest(), True, "only-path", State.ENHANCED),
        (instance("r4.large", ena=True), Guest(), True, "not-seen", State.UNKNOWN),
        (instance("r4.large", ena=True, state="stopped"), Guest(), None, "not-running", State.UNKNOWN),
        (instance("c5.large", state="stopped"), Guest(), None, "flag-off", State.NOT),
        (instance("c5.large", ena=True, state="terminated"), Guest(), None, "gone", State.UNKNOWN),
        (instance("q9.large", ena=True), Guest(), True, "unknown-type", State.UNKNOWN),
    ],
)
def test_each_rule(one: Instance, guest: Guest, reached: bool | None, rule: str, state: State) -> None:
    finding = found(one, guest, reached)
    assert (finding.rule, finding.verdict.state) == (rule, state)
    assert finding.rule in RULES


def test_nitro_without_the_flag_does_not_start_and_xen_falls_back() -> None:
    assert "does not start" in found(instance("c5.large", state="stopped")).verdict.reason
    assert "default path" in found(instance("r4.large")).verdict.reason


def test_what_cannot_be_undone_is_said() -> None:
    assert any("cannot be undone" in note for note in found(instance("c4.large", sriov=True)).notes)
    assert not any("cannot be undone" in note for note in found(instance("r4.large", ena=True)).notes)


def test_an_image_behind_its_instance_is_said() -> None:
    notes = found(instance("r4.large", ena=True), on("ena")).notes
    assert any("has not the flag" in note for note in notes)
    gone = judge(instance("r4.large", ena=True), TYPES["r4.large"], None, on("ena"), None)
    assert any("gone" in note for note in gone.notes)


_INSTANCES = st.builds(
    instance,
    st.sampled_from(sorted(TYPES)),
    ena=st.booleans(),
    sriov=st.booleans(),
    state=st.sampled_from(["pending", "running", "stopping", "stopped", "odd"]),
    virtualization=st.sampled_from(["hvm", "paravirtual"]),
)
_GUESTS = st.lists(st.sampled_from(["ena", "ixgbevf", "vif", "e1000", ""]), max_size=3).map(
    lambda names: on(*names)
)


@given(_INSTANCES, _GUESTS, st.sampled_from([True, False, None]))
def test_nothing_is_enhanced_without_evidence(one: Instance, guest: Guest, reached: bool | None) -> None:
    """Enhanced: only what a guest says, or AWS's check where there is no other path. Never the flags alone."""
    finding = found(one, guest, reached)
    assert finding.rule in RULES
    if finding.verdict.state == State.ENHANCED:
        assert TYPES[one.type].mechanism != "none" and one.virtualization == "hvm"
        drivers = {interface.driver for interface in guest.interfaces}
        assert len(drivers) == 1 or (not drivers and reached and not TYPES[one.type].falls_back)
    else:
        assert finding.verdict.next_step or finding.rule == "gone"


@pytest.mark.parametrize(("ena", "sriov"), list(product([False, True], repeat=2)))
def test_images(ena: bool, sriov: bool) -> None:
    image = replace(PLAIN, ena=ena, sriov=sriov)
    assert judge_image(image, None).verdict.state == (State.ENHANCED if ena else State.NOT)
    assert judge_image(image, TYPES["c5.large"]).verdict.state == (State.ENHANCED if ena else State.NOT)
    assert judge_image(image, TYPES["c4.large"]).verdict.state == (State.ENHANCED if sriov else State.NOT)
    assert judge_image(image, TYPES["t2.micro"]).rule == "type-has-none"
    assert judge_image(replace(image, virtualization="paravirtual"), None).rule == "paravirtual"
    assert bool(judge_image(image, None).notes) == (ena and sriov)
