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


def _allow(actions: tuple[str, ...], *resources: str, **condition: Any) -> dict[str, Any]:
    statement: dict[str, Any] = {"Effect": "Allow", "Action": sorted(actions), "Resource": sorted(resources)}
    return {**statement, "Condition": condition} if condition else statement


_CHECK = (_allow(_READ, "*"), _allow(("ssm:SendCommand",), _INSTANCES, _SHELL))


def check_policy() -> dict[str, Any]:
    """For `vfwire ec2 check` and `vfwire catalog --refresh`."""
    return {"Version": "2012-10-17", "Statement": list(_CHECK)}


def actions(policy: dict[str, Any]) -> set[str]:
    """Every action that a policy allows."""
    return {action for statement in policy["Statement"] for action in statement["Action"]}
