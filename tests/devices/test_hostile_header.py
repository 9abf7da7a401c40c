"""A guest of either model that lies about who it is, also while the card looks: what was checked is what arrives."""

import struct
import threading

from hostile_kit import Client, Scene

from vfwire.bus.vfio_user.client import VfioUserFunction
from vfwire.datapath.state import Drop
from vfwire.drivers.table import open_driver
from vfwire.drivers.verbs import Pool, burst
from vfwire.memory.compiled import compiled
from vfwire.memory.words import store64


def test_a_forged_source_goes_nowhere(set_up: Scene, hostile: Client) -> None:
    nic = set_up.neighbours.nics[0]
    before = int(set_up.record.tx_frames)
    for source in (nic.mac, set_up.neighbours.nics[1].mac, bytes(6), b"\xff" * 6, hostile.mac[:5] + b"\xee"):
        for to in (nic.mac, b"\xff" * 6):
            hostile.send(hostile.frame(to, source))
    hostile.wait_taken()
    assert set_up.drops(Drop.SPOOF) == 10 and set_up.record.tx_frames == before


@compiled
def flip(address, good, bad, times):  # type: ignore[no-untyped-def]
    """Write one or the other header into a frame, over and over."""
    for _ in range(times):
        store64(address + 8, bad[1])
        store64(address, bad[0])
        store64(address, good[0])
        store64(address + 8, good[1])


def test_the_header_that_was_checked_is_the_header_that_arrives(set_up: Scene, hostile: Client) -> None:
    forged = set_up.neighbours.nics[0].mac
    with Pool(1024) as pool:
        function = VfioUserFunction(set_up.directory / "3")
        with open_driver(function, pool, ring_size=512) as witness:
            frames = burst(256)
            good = witness.mac + hostile.mac + b"\x88\xb5"
            headers = [
                struct.unpack("<qq", header + bytes(2))
                for header in (good, witness.mac + forged + b"\x81\x00")
            ]
            at = hostile.put(hostile.tx_buffers, hostile.frame(witness.mac))
            address = hostile.memory.address + hostile.tx_buffers
            flip(address, headers[0], headers[1], 1)
            arrived, enough = 0, 2000
            for attempt in range(400):
                for _ in range(120):
                    hostile.plain(at, 60)
                flipping = threading.Thread(target=flip, args=(address, headers[0], headers[1], 1_000_000))
                flipping.start()
                hostile.doorbell()
                hostile.wait_taken()
                flipping.join()
                taken = frames[: witness.receive(frames)]
                for view in pool.views(taken):
                    assert view[:14].tobytes() == good
                pool.give(taken)
                arrived += len(taken)
                if attempt > 100 and arrived > enough and set_up.drops(Drop.SPOOF) > 0:
                    break
            assert arrived > 0 and set_up.drops(Drop.SPOOF) > 0
        del witness  # an ENA's driver has views of its pool
