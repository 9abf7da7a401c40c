"""What EC2 is asked: instances, images, status checks, each in as few requests as its limits allow.

An ID that has vanished fails a whole list of IDs (InvalidInstanceID.NotFound), so IDs go in as filters where there is
one, and a list that fails is asked again by halves.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice
from typing import TypeVar

from vfwire.checks.ec2.aws import Aws, AwsRefused, told
from vfwire.checks.ec2.facts import Image, Instance, image_of, instance_of

_T = TypeVar("_T")

PAGE = 500  # DescribeInstances takes up to 1,000; half of that is half of the memory
_FILTER_VALUES = 200  # API Reference, Filter: at most 200 values
STATUSES = 100  # DescribeInstanceStatus: at most 100 IDs
_LIVING = ["pending", "running", "stopping", "stopped"]


def batches(values: Iterable[_T], size: int) -> Iterator[list[_T]]:
    rest = iter(values)
    while batch := list(islice(rest, size)):
        yield batch


def instances(aws: Aws, names: Sequence[str] | None) -> Iterator[list[Instance]]:
    """Pages of those named, or of all that are not terminated (None). Who is not there is in no page."""
    if names is None:
        yield from _pages(aws, "instance-state-name", _LIVING)
        return
    for batch in batches(names, _FILTER_VALUES):
        yield from _pages(aws, "instance-id", batch)


def _pages(aws: Aws, name: str, values: list[str]) -> Iterator[list[Instance]]:
    pages = iter(
        aws.ec2.get_paginator("describe_instances").paginate(
            Filters=[{"Name": name, "Values": values}], PaginationConfig={"PageSize": PAGE}
        )
    )
    while True:
        with told():
            page = next(pages, None)
        if page is None:
            return
        yield [instance_of(one) for held in page["Reservations"] for one in held.get("Instances", ())]


def regions(aws: Aws) -> list[str]:
    """Names of the regions that are enabled for the account."""
    with told():
        answer = aws.ec2.describe_regions()
    return sorted(one["RegionName"] for one in answer["Regions"])


def images(aws: Aws, names: Iterable[str]) -> dict[str, Image]:
    """The AMIs that are there, deprecated and disabled ones included."""
    found: dict[str, Image] = {}
    for batch in batches(names, _FILTER_VALUES):
        with told():
            answer = aws.ec2.describe_images(
                Filters=[{"Name": "image-id", "Values": batch}], IncludeDeprecated=True, IncludeDisabled=True
            )
        found |= {one["ImageId"]: image_of(one) for one in answer["Images"]}
    return found


def reached(aws: Aws, names: Sequence[str]) -> dict[str, bool]:
    """What the instance status check says of at most STATUSES running instances: whether an ARP request is answered."""

    def ask(some: Sequence[str]) -> dict[str, bool]:
        with told():
            answer = aws.ec2.describe_instance_status(InstanceIds=list(some))
        return {
            one["InstanceId"]: detail["Status"] == "passed"
            for one in answer["InstanceStatuses"]
            for detail in one["InstanceStatus"].get("Details", ())
            if detail.get("Name") == "reachability" and detail.get("Status") in ("passed", "failed")
        }

    return by_halves(names, ask, {"InvalidInstanceID.NotFound"})


def by_halves(
    names: Sequence[str], ask: Callable[[Sequence[str]], dict[str, _T]], spoils: set[str]
) -> dict[str, _T]:
    """Ask for all at once; when one of them spoils it (an error code in `spoils`), leave out only that one."""
    if not names:
        return {}
    try:
        return ask(names)
    except AwsRefused as error:
        if error.code not in spoils:
            raise
    if len(names) == 1:
        return {}
    half = len(names) // 2
    return by_halves(names[:half], ask, spoils) | by_halves(names[half:], ask, spoils)
