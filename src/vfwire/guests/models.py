"""Of which model a guest's functions are: of one, since a system is on the 82599 VF or on the ENA and never on both."""

import contextlib
from collections.abc import Sequence
from pathlib import Path

from vfwire.devices.management import ManagementClient
from vfwire.devices.models import one_model
from vfwire.devices.run_directory import MANAGEMENT
from vfwire.errors import VfwireError


def check_one_model(functions: Sequence[Path]) -> None:
    """Ask the cards behind these sockets. Raises UsageError where they are of several models.

    A card that does not answer, as one of another user's, is not judged.
    """
    found = []
    for directory in dict.fromkeys(path.parent for path in functions):
        with contextlib.suppress(VfwireError), ManagementClient(directory / MANAGEMENT) as card:
            found.append(str(card.ask("show")["model"]))
    if found:
        one_model(found, "guest")
