"""The local endpoint keeps AWS's rules: one test for each that moto lacks. The sources are named in rules.py."""

from typing import Any

import boto3
import pytest
from botocore.config import Config
from botocore.exceptions import ClientError

from tests.ec2_endpoint.guests import Guest
from tests.ec2_endpoint.server import Endpoint


@pytest.fixture
def client(ec2: Endpoint) -> Any:
    return boto3.Session().client("ec2", config=Config(retries={"total_max_attempts": 1}))


@pytest.fixture
def ssm(ec2: Endpoint) -> Any:
    return boto3.Session().client("ssm", config=Config(retries={"total_max_attempts": 1}))


def described(client: Any, name: str) -> Any:
    return client.describe_instances(InstanceIds=[name])["Reservations"][0]["Instances"][0]


def settled(client: Any, name: str, state: str) -> Any:
    for _ in range(3):
        found = described(client, name)
        if found["State"]["Name"] == state:
            return found
    raise AssertionError(found["State"])


def stopped(client: Any, name: str) -> None:
    client.stop_instances(InstanceIds=[name])
    settled(client, name, "stopped")


def code(caught: pytest.ExceptionInfo[ClientError]) -> str:
    return caught.value.response["Error"]["Code"]


def test_an_instance_has_the_flags_of_its_image(ec2: Endpoint, client: Any) -> None:
    (plain,) = ec2.launch("r4.large", ec2.image())
    (both,) = ec2.launch("r4.large", ec2.image(ena=True, sriov=True))
    assert described(client, plain.id)["EnaSupport"] is False
    assert "SriovNetSupport" not in described(client, plain.id)
    assert described(client, both.id)["EnaSupport"] is True
    assert described(client, both.id)["SriovNetSupport"] == "simple"


def test_a_nitro_type_wants_an_image_with_ena(ec2: Endpoint, client: Any) -> None:
    with pytest.raises(ClientError) as caught:
        client.run_instances(ImageId=ec2.image(), InstanceType="c5.large", MinCount=1, MaxCount=1)
    assert code(caught) == "InvalidParameterCombination"
    client.run_instances(ImageId=ec2.image(ena=True), InstanceType="c5.large", MinCount=1, MaxCount=1)


def test_a_nitro_type_without_the_flag_does_not_start(ec2: Endpoint, client: Any) -> None:
    (one,) = ec2.launch("r4.large", ec2.image())
    stopped(client, one.id)
    client.modify_instance_attribute(InstanceId=one.id, InstanceType={"Value": "c5.large"})
    with pytest.raises(ClientError) as caught:
        client.start_instances(InstanceIds=[one.id])
    assert code(caught) == "InvalidParameterCombination"


@pytest.mark.parametrize(
    "change", [{"EnaSupport": {"Value": True}}, {"SriovNetSupport": {"Value": "simple"}}]
)
def test_flags_change_only_while_stopped_and_nothing_else_does(
    ec2: Endpoint, client: Any, change: dict[str, Any]
) -> None:
    (one,) = ec2.launch("r4.large", ec2.image())
    groups = described(client, one.id)["NetworkInterfaces"][0]["Groups"]
    with pytest.raises(ClientError) as caught:
        client.modify_instance_attribute(InstanceId=one.id, **change)
    assert code(caught) == "IncorrectInstanceState"
    client.stop_instances(InstanceIds=[one.id])
    with pytest.raises(ClientError) as caught:
        client.modify_instance_attribute(InstanceId=one.id, **change)
    assert code(caught) == "IncorrectInstanceState"  # it is only stopping
    settled(client, one.id, "stopped")
    client.modify_instance_attribute(InstanceId=one.id, **change)
    after = described(client, one.id)
    assert after.get(next(iter(change))) == next(iter(change.values()))["Value"]
    assert after["NetworkInterfaces"][0]["Groups"] == groups and groups


def test_ena_can_be_taken_back_and_the_82599_cannot(ec2: Endpoint, client: Any) -> None:
    (one,) = ec2.launch("r4.large", ec2.image(ena=True, sriov=True))
    stopped(client, one.id)
    client.modify_instance_attribute(InstanceId=one.id, EnaSupport={"Value": False})
    assert described(client, one.id)["EnaSupport"] is False
    for value in ("", "none", "false"):
        with pytest.raises(ClientError) as caught:
            client.modify_instance_attribute(InstanceId=one.id, SriovNetSupport={"Value": value})
        assert code(caught) == "InvalidParameterValue"
    assert described(client, one.id)["SriovNetSupport"] == "simple"


def test_images_show_their_flags_and_are_found_by_them(ec2: Endpoint, client: Any) -> None:
    plain, ena, both = ec2.image(), ec2.image(ena=True), ec2.image(ena=True, sriov=True)
    told = {image["ImageId"]: image for image in client.describe_images()["Images"]}
    assert [told[name].get("EnaSupport") for name in (plain, ena, both)] == [False, True, True]
    assert [told[name].get("SriovNetSupport") for name in (plain, ena, both)] == [None, None, "simple"]

    def found(name: str, value: str) -> set[str]:
        filters = [{"Name": name, "Values": [value]}]
        return {image["ImageId"] for image in client.describe_images(Filters=filters)["Images"]}

    assert found("ena-support", "true") == {ena, both}
    assert found("sriov-net-support", "simple") == {both}


def test_a_registered_image_keeps_what_it_was_told(ec2: Endpoint, client: Any) -> None:
    source = client.describe_images(ImageIds=[ec2.image()])["Images"][0]
    made = client.register_image(
        Name="again",
        Architecture="arm64",
        RootDeviceName=source["RootDeviceName"],
        BlockDeviceMappings=[
            {
                "DeviceName": source["RootDeviceName"],
                "Ebs": {"SnapshotId": source["BlockDeviceMappings"][0]["Ebs"]["SnapshotId"]},
            }
        ],
        EnaSupport=True,
        SriovNetSupport="simple",
        VirtualizationType="hvm",
    )["ImageId"]
    image = client.describe_images(ImageIds=[made])["Images"][0]
    assert image["EnaSupport"] is True and image["SriovNetSupport"] == "simple"
    assert image["VirtualizationType"] == "hvm" and image["Architecture"] == "arm64"
    assert (
        image["BlockDeviceMappings"][0]["Ebs"]["SnapshotId"]
        == (source["BlockDeviceMappings"][0]["Ebs"]["SnapshotId"])
    )
    bare = client.register_image(Name="bare")["ImageId"]
    assert client.describe_images(ImageIds=[bare])["Images"][0]["VirtualizationType"] == "paravirtual"


def test_names_of_images_are_unique(ec2: Endpoint, client: Any) -> None:
    (one,) = ec2.launch("r4.large", ec2.image())
    client.create_image(InstanceId=one.id, Name="same")
    with pytest.raises(ClientError) as caught:
        client.create_image(InstanceId=one.id, Name="same")
    assert code(caught) == "InvalidAMIName.Duplicate"
    with pytest.raises(ClientError) as caught:
        client.register_image(Name="same")
    assert code(caught) == "InvalidAMIName.Duplicate"


def test_an_image_of_an_instance_has_its_flags_and_is_pending_first(ec2: Endpoint, client: Any) -> None:
    (one,) = ec2.launch("r4.large", ec2.image(ena=True))
    made = client.create_image(InstanceId=one.id, Name="copy")["ImageId"]
    states = [client.describe_images(ImageIds=[made])["Images"][0]["State"] for _ in range(3)]
    assert states[0] == "pending" and states[-1] == "available"
    assert client.describe_images(ImageIds=[made])["Images"][0]["EnaSupport"] is True


def test_an_instance_store_instance_does_not_stop(ec2: Endpoint, client: Any) -> None:
    (one,) = ec2.launch("r3.large", ec2.image(root="instance-store"))
    with pytest.raises(ClientError) as caught:
        client.stop_instances(InstanceIds=[one.id])
    assert code(caught) == "UnsupportedOperation"
    assert described(client, one.id)["State"]["Name"] == "running"


def test_the_status_check_reaches_a_guest_by_its_interface(ec2: Endpoint, client: Any) -> None:
    (up,) = ec2.launch("c5.large", ec2.image(ena=True))
    (cut,) = ec2.launch("c5.large", ec2.image(ena=True), Guest(kernels={"6.12.1": {"ixgbevf"}}))
    told = {
        one["InstanceId"]: one["InstanceStatus"]["Details"][0]["Status"]
        for one in client.describe_instance_status(InstanceIds=[up.id, cut.id])["InstanceStatuses"]
    }
    assert told == {up.id: "passed", cut.id: "failed"}
    with pytest.raises(ClientError):
        client.describe_instance_status(InstanceIds=[f"i-{number:017x}" for number in range(101)])


def asked(ssm: Any, name: str, script: str) -> str:
    command = ssm.send_command(
        DocumentName="AWS-RunShellScript", InstanceIds=[name], Parameters={"commands": [script]}
    )["Command"]["CommandId"]
    with pytest.raises(ClientError) as caught:
        ssm.get_command_invocation(CommandId=command, InstanceId=name)
    assert code(caught) == "InvocationDoesNotExist"
    output: str = ssm.get_command_invocation(CommandId=command, InstanceId=name)["StandardOutputContent"]
    return output


@pytest.mark.parametrize(
    ("type_name", "flags", "driver"),
    [
        ("c5.large", {"ena": True}, "ena"),
        ("r4.large", {"ena": True, "sriov": True}, "ena"),
        ("r4.large", {}, "vif"),
        ("c4.large", {"sriov": True}, "ixgbevf"),
        ("c4.large", {"ena": True}, "vif"),
        ("t2.micro", {"ena": True, "sriov": True}, "vif"),
    ],
)
def test_run_command_answers_ethtool(
    ec2: Endpoint, ssm: Any, type_name: str, flags: dict[str, bool], driver: str
) -> None:
    (one,) = ec2.launch(type_name, ec2.image(**flags))
    lines = asked(ssm, one.id, "cd /\nethtool -i eth0").splitlines()
    assert lines[0] == f"driver: {driver}" and any(line.startswith("bus-info: ") for line in lines)


def test_run_command_is_shown_under_way_first_and_cuts_long_output(ec2: Endpoint, ssm: Any) -> None:
    (one,) = ec2.launch("c5.large", ec2.image(ena=True))
    command = ssm.send_command(
        DocumentName="AWS-RunShellScript",
        InstanceIds=[one.id],
        Parameters={"commands": ["cd /\nprintf '%03000d' 1"]},
    )["Command"]["CommandId"]
    first, second = (
        ssm.list_command_invocations(CommandId=command, Details=True)["CommandInvocations"][0]
        for _ in range(2)
    )
    assert first["Status"] == "InProgress" and second["Status"] == "Success"
    assert len(second["CommandPlugins"][0]["Output"]) == 2500


def test_only_managed_instances_take_commands_and_fifty_at_most(ec2: Endpoint, ssm: Any) -> None:
    image = ec2.image(ena=True)
    (managed,) = ec2.launch("c5.large", image)
    (other,) = ec2.launch("c5.large", image, Guest(managed=False))
    told = ssm.describe_instance_information(
        Filters=[{"Key": "InstanceIds", "Values": [managed.id, other.id]}], MaxResults=50
    )["InstanceInformationList"]
    assert [(one["InstanceId"], one["PingStatus"]) for one in told] == [(managed.id, "Online")]
    for names in ([other.id], [managed.id] * 51):
        with pytest.raises(ClientError):
            ssm.send_command(
                DocumentName="AWS-RunShellScript", InstanceIds=names, Parameters={"commands": ["cd /\n"]}
            )


def test_it_throttles_refuses_and_keeps_count(ec2: Endpoint, client: Any, ssm: Any) -> None:
    ec2.throttled["ec2:DescribeInstances"] = 1
    ec2.denied.add("ssm:DescribeInstanceInformation")
    with pytest.raises(ClientError) as caught:
        client.describe_instances()
    assert code(caught) == "RequestLimitExceeded"
    client.describe_instances()
    with pytest.raises(ClientError) as caught:
        ssm.describe_instance_information()
    assert code(caught) == "AccessDeniedException"
    assert ec2.calls == ["ec2:DescribeInstances"] * 2 + ["ssm:DescribeInstanceInformation"]
