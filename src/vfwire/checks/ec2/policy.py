"""The least that IAM must allow for each command.

Source: Service Authorization Reference, "Actions, resources, and condition keys for Amazon EC2" and "… for AWS Systems
Manager": Describe and List actions take no resource but "*".
"""

from typing import Any

_READ = (
    "ec2:DescribeImages",
    "ec2:DescribeInstances",
    "ec2:DescribeInstanceStatus",
    "ec2:DescribeInstanceTypes",
    "ssm:DescribeInstanceInformation",
    "ssm:ListCommandInvocations",
)
_INSTANCES = "arn:*:ec2:*:*:instance/*"
_SHELL = "arn:*:ssm:*::document/AWS-RunShellScript"


def _allow(actions: tuple[str, ...], *resources: str) -> dict[str, Any]:
    return {"Effect": "Allow", "Action": sorted(actions), "Resource": sorted(resources)}


_CHECK = (_allow((*_READ, "ec2:DescribeRegions"), "*"), _allow(("ssm:SendCommand",), _INSTANCES, _SHELL))


def check_policy() -> dict[str, Any]:
    """For `vfwire ec2 check` and `vfwire catalog --refresh`."""
    return {"Version": "2012-10-17", "Statement": list(_CHECK)}


def enable_policy() -> dict[str, Any]:
    """For `vfwire ec2 enable`: what check needs, and what changes something, on instances and what is made of them."""
    made = ("arn:*:ec2:*::image/*", "arn:*:ec2:*::snapshot/*")
    change = ("ec2:ModifyInstanceAttribute", "ec2:StartInstances", "ec2:StopInstances")
    return {
        "Version": "2012-10-17",
        "Statement": [
            _allow((*_READ, "ec2:DescribeInstanceAttribute", "ssm:GetCommandInvocation"), "*"),
            _allow(("ssm:SendCommand",), _INSTANCES, _SHELL),
            _allow(change, _INSTANCES),
            _allow(("ec2:CreateImage",), _INSTANCES, *made),
            _allow(("ec2:RegisterImage",), *made),
        ],
    }


def actions(policy: dict[str, Any]) -> set[str]:
    """Every action that a policy allows."""
    return {action for statement in policy["Statement"] for action in statement["Action"]}
