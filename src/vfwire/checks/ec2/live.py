"""The catalog of instance types, asked of AWS."""

import os
import tempfile
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

from vfwire.checks.ec2.aws import Aws, told
from vfwire.checks.ec2.catalog import InstanceType, from_description, refreshed_path, to_text

_PAGE = 100  # DescribeInstanceTypes: MaxResults is at most 100


def ask_types(aws: Aws, progress: Callable[[int], None]) -> list[InstanceType]:
    """Every instance type of the region. `progress` hears how many there are so far. Raises what aws.told raises."""
    found: list[InstanceType] = []
    with told():
        for page in aws.ec2.get_paginator("describe_instance_types").paginate(
            PaginationConfig={"PageSize": _PAGE}
        ):
            found += [from_description(info) for info in page["InstanceTypes"]]
            progress(len(found))
    return found


def ask_some(aws: Aws, names: list[str]) -> list[InstanceType]:
    """Those types of `names` that the region has: asked by a filter, because one unknown name fails a list."""
    with told():
        pages = aws.ec2.get_paginator("describe_instance_types").paginate(
            Filters=[{"Name": "instance-type", "Values": names}]
        )
        return [from_description(info) for page in pages for info in page["InstanceTypes"]]


def refresh(aws: Aws, progress: Callable[[int], None]) -> Path:
    """Take the region's catalog live and keep it for `catalog.load`: whole, or as it was. Returns where."""
    types = ask_types(aws, progress)
    text = to_text(types, f"DescribeInstanceTypes in {aws.region}", datetime.now(UTC).date().isoformat())
    path = refreshed_path()
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=path.name)
    try:
        with os.fdopen(descriptor, "w") as file:
            file.write(text)
        Path(name).replace(path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise
    return path
