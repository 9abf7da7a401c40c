"""Check many instances: page by page, batches of 50 in a bounded number of threads, nothing kept but what is asked for.

At any time there are one page of DescribeInstances (500 instances), a few batches under way, and the images seen last.
"""

from collections import OrderedDict, deque
from collections.abc import Collection, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass
from typing import Any

from vfwire.checks.ec2 import ask, guests
from vfwire.checks.ec2.aws import WORKERS, Aws
from vfwire.checks.ec2.catalog import Catalog, InstanceType
from vfwire.checks.ec2.facts import Guest, Image, Instance
from vfwire.checks.ec2.judge import Finding, gone, judge
from vfwire.checks.ec2.live import ask_some
from vfwire.errors import VfwireError

_IMAGES_KEPT = 10_000
_UNDER_WAY = 2  # batches for each worker: one that runs, one that waits


@dataclass(frozen=True)
class Checked:
    """One instance's answer. `instance` is None where there is none of that name."""

    name: str
    region: str
    instance: Instance | None
    image: Image | None
    guest: Guest
    finding: Finding

    def as_json(self) -> dict[str, Any]:
        """One flat object; the journal's lines and `--json` have the same."""
        instance = self.instance
        return {
            "id": self.name,
            "region": self.region,
            "type": instance and instance.type,
            "state": instance and instance.state,
            "virtualization": instance and instance.virtualization,
            "mechanism": self.finding.mechanism,
            **self.finding.verdict.as_json(),
            "rule": self.finding.rule,
            "flags": instance and {"ena": instance.ena, "sriov": instance.sriov},
            "image": asdict(self.image) if self.image else None,
            "interfaces": [asdict(one) for one in self.guest.interfaces],
            "guest_silent": self.guest.silent or None,
            "notes": list(self.finding.notes),
        }


class Fleet:
    """Instances of one region. workers: how many requests are under way at once."""

    def __init__(self, aws: Aws, catalog: Catalog, ask_guests: bool = True, workers: int = WORKERS) -> None:
        self._aws, self._ask_guests, self._workers = aws, ask_guests, workers
        self._types: dict[str, InstanceType | None] = dict(catalog.types)
        self._images: OrderedDict[str, Image | None] = OrderedDict()

    def check(self, names: Sequence[str] | None, done: Collection[str] = ()) -> Iterator[Checked]:
        """Those named, or all (None), without those that are `done`. Raises what aws.told raises, after those that are
        under way then.
        """
        wanted = None if names is None else [name for name in dict.fromkeys(names) if name not in done]
        seen: set[str] = set()
        with ThreadPoolExecutor(self._workers, thread_name_prefix="vfwire-ec2") as pool:
            try:
                yield from self._check_pages(pool, self._pages(wanted, done, seen))
            except BaseException:
                self._aws.stopping.set()
                pool.shutdown(cancel_futures=True)
                raise
        for name in wanted or ():
            if name not in seen:
                yield Checked(name, self._aws.region, None, None, Guest(), gone(name, self._aws.region))

    def _pages(
        self, wanted: list[str] | None, done: Collection[str], seen: set[str]
    ) -> Iterator[list[Instance]]:
        for told in ask.instances(self._aws, wanted):
            page = [one for one in told if one.id not in done]
            if wanted is not None:
                seen |= {one.id for one in page}
            self._learn(page)
            yield page

    def _check_pages(self, pool: ThreadPoolExecutor, pages: Iterator[list[Instance]]) -> Iterator[Checked]:
        under_way: deque[Future[list[Checked]]] = deque()
        failure: VfwireError | None = None
        try:
            for page in pages:
                for batch in ask.batches(page, guests.BATCH):
                    images = {one.image_id: self._images.get(one.image_id) for one in batch}
                    under_way.append(pool.submit(self._check_batch, batch, images))
                    if len(under_way) >= _UNDER_WAY * self._workers:
                        yield from under_way.popleft().result()
        except VfwireError as error:
            failure = error
        for future in under_way:
            try:
                yield from future.result()
            except VfwireError as error:
                failure = failure or error
        if failure:
            raise failure

    def _learn(self, page: list[Instance]) -> None:
        """Ask for the types and images of a page that are not known yet."""
        unknown = sorted({one.type for one in page} - self._types.keys())
        for batch in ask.batches(unknown, 100):
            self._types |= dict.fromkeys(batch)
            self._types |= {one.name: one for one in ask_some(self._aws, batch)}
        wanted = sorted({one.image_id for one in page if one.image_id} - self._images.keys())
        if wanted:
            self._images |= dict.fromkeys(wanted)
            self._images |= ask.images(self._aws, wanted)
        while len(self._images) > _IMAGES_KEPT + ask.PAGE:
            self._images.popitem(last=False)

    def _check_batch(self, batch: list[Instance], images: dict[str, Image | None]) -> list[Checked]:
        """In a worker's thread: ask the guests, and AWS's status check for those that do not answer."""
        answers = self._guests([one for one in batch if one.state == "running"])
        reached = self._reached(
            [one for one in batch if one.state == "running" and not answers[one.id].interfaces]
        )
        checked = []
        for one in batch:
            kind, image = self._types.get(one.type), images.get(one.image_id)
            guest = answers.get(one.id, Guest(silent=f"it is {one.state}"))
            finding = judge(one, kind, image, guest, reached.get(one.id))
            checked.append(Checked(one.id, self._aws.region, one, image, guest, finding))
        return checked

    def _guests(self, running: list[Instance]) -> dict[str, Guest]:
        silent = {one.id: Guest(silent="it was not asked") for one in running}
        if not self._ask_guests:
            return silent
        windows = Guest(silent="it runs Windows, and the question is for Linux")
        silent |= {one.id: windows for one in running if one.windows}
        names = [one.id for one in running if not one.windows]
        return silent | (guests.ask_drivers(self._aws, names) if names else {})

    def _reached(self, running: list[Instance]) -> dict[str, bool]:
        """Asked only where it decides: where the type has no other path to fall back to."""
        names = []
        for one in running:
            kind = self._types.get(one.type)
            if kind is not None and not kind.falls_back and one.ena:
                names.append(one.id)
        return ask.reached(self._aws, names)
