"""Write the catalog of instance types that ships with the package, from moto's recorded DescribeInstanceTypes.

    python tools/make_catalog.py 2026-10      # when the installed moto was published

moto (Apache-2.0) carries the answer of DescribeInstanceTypes as it was when that version was published; the recording
holds no date of its own. `vfwire catalog --refresh` takes the same data live.
"""

import gzip
import json
import sys
from importlib.metadata import version
from importlib.resources import files
from pathlib import Path

from vfwire.checks.ec2.catalog import from_description, to_text

RECORDED = "ec2/resources/instance_types.json.gz"
WRITTEN = Path(__file__).parent.parent / "src/vfwire/checks/ec2/data/instance_types.json"


def main(published: str) -> None:
    """Read the installed moto's recording, write the data file."""
    recorded = json.loads(gzip.decompress((files("moto") / RECORDED).read_bytes()))
    types = [from_description(info) for info in recorded.values()]
    source = f"DescribeInstanceTypes as recorded in moto {version('moto')} ({RECORDED})"
    WRITTEN.write_text(to_text(types, source, published))
    print(f"{WRITTEN}: {len(types)} types")


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("usage: python tools/make_catalog.py YYYY-MM, when the installed moto was published")
    main(sys.argv[1])
