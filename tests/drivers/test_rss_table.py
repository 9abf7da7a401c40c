"""An indirection table as long as a device says it is."""

from typing import Any

import numpy as np
import pytest

from vfwire.drivers.ena_rss import KEY_BYTES, set_up_rss
from vfwire.errors import ProtocolError
from vfwire.layouts import ena_admin as admin
from vfwire.layouts import ena_messages as msg


class Device:
    """An admin queue whose device has a table of 2^max_size entries."""

    def __init__(self, max_size: int) -> None:
        self.buffer = np.zeros(4096, np.uint8)
        self.table: np.ndarray[Any, Any] | None = None
        self._shape = np.zeros((), msg.IND_TABLE)
        self._shape["max_size"] = max_size

    def view(self, _name: str) -> Any:
        return self.buffer

    def get_feature(self, _feature: int, _kind: Any) -> Any:
        return self._shape

    def set_feature(self, feature: int, _data: Any, *, buffer: int = 0) -> None:
        if feature == admin.RSS_INDIRECTION_TABLE_CONFIG:
            self.table = self.buffer[:buffer].view(msg.IND_TABLE_ENTRY)["cq_idx"].copy()


@pytest.mark.parametrize("max_size", [0, 7, 10])
def test_it_is_filled_evenly(max_size: int) -> None:
    device: Any = Device(max_size)
    set_up_rss(device, [4, 9], bytes(KEY_BYTES))
    assert device.table.tolist() == ([4, 9] * 512)[: 1 << max_size]


@pytest.mark.parametrize("max_size", [11, 28, 60, 0xFFFF])
def test_one_that_no_page_holds_is_refused(max_size: int) -> None:
    device: Any = Device(max_size)
    with pytest.raises(ProtocolError, match="indirection table"):
        set_up_rss(device, [0, 1], bytes(KEY_BYTES))
    assert device.table is None
