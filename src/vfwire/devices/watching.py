"""A card that is watched or not: what `vfwire card --trace --pcap` puts between its functions and their sockets."""

import contextlib
from collections.abc import Callable, Collection, Iterator
from pathlib import Path
from typing import Any

from vfwire.devices.card import Card
from vfwire.devices.pcap import PcapFile
from vfwire.devices.recorder import Recorder, Sink
from vfwire.devices.trace import TracedFunction, TraceFile
from vfwire.errors import UsageError
from vfwire.pci.endpoint import Endpoint

Wrap = Callable[[Any], Endpoint]


@contextlib.contextmanager
def watching(
    card: Card, trace: Path | None, pcap: Path | None, captured: Collection[int] = ()
) -> Iterator[Wrap | None]:
    """Watch `card` while this holds. Gives what turns a function into that which a transport serves for it, None for
    nothing.

    captured: the VFs whose frames go to `pcap`, all of the card's functions when it names none. Raises UsageError,
    PermissionDenied.
    """
    for number in captured:
        card.function(number)
    if captured and pcap is None:
        raise UsageError("--pcap-vf chooses among what --pcap captures", "give --pcap FILE as well")
    with contextlib.ExitStack() as files:
        sinks: list[Sink] = []
        if trace is not None:
            sinks.append(TraceFile(card, trace))
            files.callback(sinks[-1].close, 0)
        if pcap is not None:
            sinks.append(PcapFile(card, pcap, set(captured) or None))
        files.pop_all()
    if not sinks:
        yield None
        return
    with Recorder(card, sinks) as recorder:
        yield (lambda function: TracedFunction(function, recorder)) if trace is not None else None
