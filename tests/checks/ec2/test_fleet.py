"""Many instances against the local endpoint: every kind in one run, what goes wrong, how much is asked."""

from collections import Counter
from typing import Any

import pytest

from tests.ec2_endpoint.guests import Guest
from tests.ec2_endpoint.server import Endpoint
from vfwire.checks.ec2 import ask, catalog
from vfwire.checks.ec2.aws import Aws
from vfwire.checks.ec2.fleet import Checked, Fleet
from vfwire.checks.verdict import State
from vfwire.errors import CannotTell

GONE = "i-00000000000000000"


def check(names: list[str] | None = None, done: Any = (), **options: Any) -> dict[str, Checked]:
    fleet = Fleet(Aws(), catalog.shipped(), **options)
    found = list(fleet.check(names, done))
    assert len({one.name for one in found}) == len(found)
    return {one.name: one for one in found}


def test_one_run_tells_every_kind_apart(ec2: Endpoint) -> None:
    plain, ena, both = ec2.image(), ec2.image(ena=True), ec2.image(ena=True, sriov=True)
    wanted = {
        ec2.launch("c5.large", ena)[0].id: ("in-use", State.ENHANCED),
        ec2.launch("c5.large", ena, Guest(managed=False))[0].id: ("only-path", State.ENHANCED),
        ec2.launch("c5.large", ena, Guest(kernels={"6.1": set()}))[0].id: ("not-reached", State.UNKNOWN),
        ec2.launch("c5.large", ena, Guest(platform="Windows"))[0].id: ("only-path", State.ENHANCED),
        ec2.launch("r4.large", both)[0].id: ("in-use", State.ENHANCED),
        ec2.launch("r4.large", plain)[0].id: ("flag-off", State.NOT),
        ec2.launch("r4.large", ena, Guest(managed=False))[0].id: ("not-seen", State.UNKNOWN),
        ec2.launch("c4.large", both)[0].id: ("in-use", State.ENHANCED),
        ec2.launch("c4.large", ena)[0].id: ("flag-off", State.NOT),
        ec2.launch("t2.micro", both)[0].id: ("type-has-none", State.NOT),
        ec2.launch("c3.large", ec2.image(virtualization="paravirtual"))[0].id: ("paravirtual", State.NOT),
    }
    found = check()
    assert {name: (one.finding.rule, one.finding.verdict.state) for name, one in found.items()} == wanted
    assert not [action for action in ec2.calls if not action.startswith(("ec2:Describe", "ssm:"))]


def test_named_ones_and_one_that_is_gone(ec2: Endpoint) -> None:
    one, other = ec2.launch("c5.large", ec2.image(ena=True), count=2)
    found = check([one.id, GONE, one.id])
    assert set(found) == {one.id, GONE} and other.id not in found
    assert found[GONE].finding.rule == "gone" and found[GONE].finding.verdict.state == State.UNKNOWN
    assert "--region" in found[GONE].finding.verdict.next_step


def test_more_than_one_page_and_few_requests(ec2: Endpoint, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ask, "PAGE", 60)
    ec2.launch("c5.large", ec2.image(ena=True), count=130)
    assert len(check(workers=4)) == 130
    counted = Counter(ec2.calls)
    assert counted["ec2:DescribeInstances"] == 3 and counted["ec2:DescribeImages"] == 1
    # Pages of 60, 60 and 10 in batches of 50: five batches, and two looks at each.
    assert counted["ssm:DescribeInstanceInformation"] == counted["ssm:SendCommand"] == 5
    assert counted["ssm:ListCommandInvocations"] == 10 and "ec2:DescribeInstanceStatus" not in counted


def test_what_is_done_is_not_asked_again(ec2: Endpoint) -> None:
    first, second = ec2.launch("c5.large", ec2.image(ena=True), count=2)
    assert set(check(None, {first.id})) == {second.id}
    ec2.calls.clear()
    assert check([first.id], {first.id}) == {}
    assert not ec2.calls


def test_without_guests_no_command_is_run(ec2: Endpoint) -> None:
    ec2.launch("c5.large", ec2.image(ena=True))
    (one,) = check(ask_guests=False).values()
    assert one.finding.rule == "only-path"
    assert not [action for action in ec2.calls if action.startswith("ssm:")]


def test_throttling_is_waited_out(ec2: Endpoint) -> None:
    ec2.launch("c5.large", ec2.image(ena=True))
    ec2.throttled |= {"ec2:DescribeInstances": 2, "ssm:SendCommand": 1}
    (one,) = check().values()
    assert one.finding.rule == "in-use"
    assert Counter(ec2.calls)["ec2:DescribeInstances"] == 3


def test_systems_manager_that_is_not_allowed_costs_only_its_own_evidence(ec2: Endpoint) -> None:
    nitro = ec2.launch("c5.large", ec2.image(ena=True))[0].id
    xen = ec2.launch("r4.large", ec2.image(ena=True))[0].id
    ec2.denied.add("ssm:SendCommand")
    found = check()
    assert found[nitro].finding.rule == "only-path"
    assert found[xen].finding.rule == "not-seen" and "SendCommand" in found[xen].finding.verdict.reason


def test_what_is_not_allowed_at_all_is_one_error(ec2: Endpoint) -> None:
    ec2.launch("c5.large", ec2.image(ena=True))
    ec2.denied.add("ec2:DescribeInstances")
    with pytest.raises(CannotTell, match="--iam-policy"):
        check()


def test_one_that_vanishes_in_the_middle_spoils_nothing_for_the_others(ec2: Endpoint) -> None:
    """It is there when instances are listed, and terminated when its guest is asked."""
    image = ec2.image(ena=True)
    stays = {one.id for one in ec2.launch("c5.large", image, count=8)}
    (leaves,) = ec2.launch("c5.large", image)

    def hook(action: str, when: str) -> None:
        if action == "ssm:SendCommand" and when == "before" and leaves.state == "running":
            ec2.backend.terminate_instances([leaves.id])
            for held in list(ec2.backend.reservations.values()):
                held.instances = [one for one in held.instances if one.id != leaves.id]

    ec2.hook = hook
    found = check()
    assert {name for name, one in found.items() if one.finding.rule == "in-use"} == stays
    assert found[leaves.id].finding.verdict.state == State.UNKNOWN


def test_a_type_of_no_catalog_is_asked_of_aws(ec2: Endpoint) -> None:
    (one,) = ec2.launch("c5.large", ec2.image(ena=True))
    shipped = catalog.shipped()
    without = catalog.Catalog({name: kind for name, kind in shipped.types.items() if name != "c5.large"}, ())
    (found,) = Fleet(Aws(), without).check(None)
    assert found.name == one.id and found.finding.rule == "in-use"
    assert "ec2:DescribeInstanceTypes" in ec2.calls
