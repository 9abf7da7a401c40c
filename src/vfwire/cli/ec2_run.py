"""One run of `vfwire ec2 check`: its session, its journal, its progress, and rows as they come."""

import sys
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any, Self

from vfwire.checks.ec2 import ask, catalog
from vfwire.checks.ec2.aws import Aws, AwsRefused
from vfwire.checks.ec2.catalog import Catalog, InstanceType
from vfwire.checks.ec2.fleet import Fleet
from vfwire.checks.ec2.journal import Journal
from vfwire.checks.ec2.judge import Finding, gone, judge_image
from vfwire.checks.ec2.live import ask_some
from vfwire.errors import BadInput, UsageError, VfwireError

_TELL_EVERY_S = 2.0
_NEEDED = ("id", "region", "verdict", "rule", "reason", "next_step", "type", "notes")


@dataclass(frozen=True)
class Failure:
    """Why there is no answer for the rest of a region."""

    region: str
    error: str
    next_step: str

    def __str__(self) -> str:
        return f"{self.region}: {self.error}" + (f"; {self.next_step}" if self.next_step else "")


class Run:
    """A context manager. `rows` gives the JSON object of each instance or AMI, those of the journal first.

    failures: what ended a region's check before its end; they are known when the rows have ended.
    """

    def __init__(self, options: dict[str, Any]) -> None:
        self._options = options
        self.failures: list[Failure] = []
        first = next(iter(options["regions"]), None)
        self._aws = Aws(options["profile"], first, options["endpoint_url"], options["workers"])
        self._journal = Journal(options["journal"]) if options["journal"] else None
        self._asked = 0
        self._told = time.monotonic()

    def rows(self, names: list[str], everything: bool) -> Iterator[dict[str, Any]]:
        """Of one region after the other. What AWS refuses in one is no reason to leave out the next; whatever else goes
        wrong ends the run. Raises UsageError.
        """
        held = catalog.load()
        region = self._aws.region
        try:
            for region in self._regions():
                self._aws = self._aws.in_region(region)
                try:
                    yield from self._region(names, everything, held)
                except AwsRefused as error:
                    self.failures.append(Failure(region, error.message, error.hint))
        except UsageError:
            raise
        except VfwireError as error:
            self.failures.append(Failure(region, error.message, error.hint))
        except KeyboardInterrupt:
            self.failures.append(Failure(region, "interrupted", "with --journal, the same command goes on"))
            raise

    def _regions(self) -> list[str]:
        if self._options["all_regions"]:
            return ask.regions(self._aws)
        return list(dict.fromkeys(self._options["regions"])) or [self._aws.region]

    def _region(self, names: list[str], everything: bool, held: Catalog) -> Iterator[dict[str, Any]]:
        images = [name for name in names if name.startswith("ami-")]
        if images:
            yield from self._images(images, held)
        named = [name for name in names if not name.startswith("ami-")]
        if not everything and not named:
            return
        done: set[str] = set()
        for row in self._journalled():
            if everything or row["id"] in named:
                done.add(row["id"])
                yield row
        fleet = Fleet(self._aws, held, not self._options["no_guests"], self._options["workers"])
        for checked in fleet.check(None if everything else named, done):
            row = checked.as_json()
            if self._journal:
                self._journal.write(row, durable=False)
            self._asked += 1
            self._tell()
            yield row

    def _journalled(self) -> Iterator[dict[str, Any]]:
        """This region's rows of an earlier run."""
        for row in self._journal.lines() if self._journal else ():
            if any(name not in row for name in _NEEDED):
                raise BadInput(
                    f"{self._options['journal']} is another command's journal", "give another file"
                )
            if row["region"] == self._aws.region:
                yield row

    def _images(self, names: list[str], held: Catalog) -> Iterator[dict[str, Any]]:
        kind = self._kind(held)
        found = ask.images(self._aws, names)
        for name in names:
            image = found.get(name)
            finding: Finding = judge_image(image, kind) if image else gone(name, self._aws.region)
            self._asked += 1
            yield {
                "id": name,
                "region": self._aws.region,
                "type": kind and kind.name,
                "mechanism": finding.mechanism,
                **finding.verdict.as_json(),
                "rule": finding.rule,
                "flags": image and {"ena": image.ena, "sriov": image.sriov},
                "virtualization": image and image.virtualization,
                "notes": list(finding.notes),
            }

    def _kind(self, held: Catalog) -> InstanceType | None:
        name = self._options["type_name"]
        if name is None or name in held.types:
            return held.types.get(name) if name else None
        for kind in ask_some(self._aws, [name]):
            return kind
        raise UsageError(f"no instance type {name!r}", f"nearest: {', '.join(held.nearest(name))}")

    def _tell(self) -> None:
        """Progress on stderr, every two seconds at most."""
        if time.monotonic() - self._told >= _TELL_EVERY_S:
            self._told = time.monotonic()
            total = sum(self._aws.requests.values())
            print(
                f"vfwire: {self._aws.region}: {self._asked} checked, {total} requests",
                file=sys.stderr,
                flush=True,
            )

    def summary(self, counted: Counter[str]) -> dict[str, Any]:
        """How many of which verdict, and what was asked of AWS in this run."""
        total = sum(self._aws.requests.values())
        return {
            "checked": sum(counted.values()),
            "asked_now": self._asked,
            **{state: counted[state] for state in ("enhanced", "not", "unknown")},
            "requests": dict(self._aws.requests),
            "requests_total": total,
            "failures": [asdict(one) for one in self.failures],
            "requests_per_instance": round(total / self._asked, 4) if self._asked else 0,
        }

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._journal:
            self._journal.__exit__()
