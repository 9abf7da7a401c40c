"""The picture: it is written, or says at once why not."""

from pathlib import Path

import numpy as np
import pytest
from test_record import record

from vfwire.errors import PermissionDenied, UsageError
from vfwire.measure.plot import check_plot, plot
from vfwire.measure.record import percentiles_us

PNG = b"\x89PNG\r\n\x1a\n"


def test_a_picture_with_and_without_round_trips(tmp_path: Path) -> None:
    for rtt in (np.arange(1000, 2000, dtype=np.int64), np.zeros(0, np.int64)):
        target = tmp_path / f"{len(rtt)}.png"
        plot([record(path, rtt_us=percentiles_us(rtt)) for path in ("default", "enhanced")], target, "here")
        data = target.read_bytes()
        assert data.startswith(PNG) and len(data) > 10_000


@pytest.mark.parametrize("name", ["x", "x.txt", "missing/x.png"])
def test_names_that_cannot_be_drawn_to(tmp_path: Path, name: str) -> None:
    with pytest.raises(UsageError):
        check_plot(tmp_path / name)


def test_a_name_that_is_a_directory(tmp_path: Path) -> None:
    (tmp_path / "x.png").mkdir()
    with pytest.raises(PermissionDenied):
        plot([record("default")], tmp_path / "x.png", "here")
