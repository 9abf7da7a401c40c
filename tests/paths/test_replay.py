"""Which addresses a capture's frames have, and when they are too many for a VF."""

import pytest

from vfwire.errors import BadInput
from vfwire.paths.applications import Packed
from vfwire.paths.replay import MOST_MACS, MOST_VLANS, addresses_of


def frame(to: int, vlan: int | None = None) -> bytes:
    tag = b"" if vlan is None else b"\x81\x00" + vlan.to_bytes(2, "big")
    return to.to_bytes(6, "big") + bytes(6) + tag + b"\x08\x00" + bytes(50)


def test_destinations_and_vlans() -> None:
    found = addresses_of(
        Packed.of(
            [frame(0x020000000001), frame(0x01005E000001), frame(0x020000000002, 0x6005), frame(2, 0xE000)]
        )
    )
    assert [mac.hex() for mac in found.macs] == ["000000000002", "020000000001", "020000000002"]
    assert found.vlans == (5,)


@pytest.mark.parametrize(
    "frames",
    [
        [frame(2 * number) for number in range(MOST_MACS + 1)],
        [frame(2, number) for number in range(MOST_VLANS + 1)],
    ],
)
def test_more_than_a_vf_can_be_told(frames: list[bytes]) -> None:
    with pytest.raises(BadInput, match="a VF takes"):
        addresses_of(Packed.of(frames))


def test_packed_frames_lie_one_behind_another() -> None:
    packed = Packed.of([b"ab", b"cde"])
    assert (
        packed.index.tolist() == [[0, 2], [2, 3]]
        and packed.data[:5].tobytes() == b"abcde"
        and len(packed) == 2
    )
