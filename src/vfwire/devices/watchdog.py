"""What the loop cannot notice by itself: that a guest has made it wait.

The loop signals a guest's eventfds. They are set not to block, but that flag, and the counter, are the
guest's as well: a guest that fills the counter and takes the flag off again holds whoever signals it. A loop
that stands still is set free by emptying that eventfd, which is taken away from the function.
"""

import fcntl
import logging
import os
import select
from pathlib import Path

from vfwire.datapath.control_words import field_address, load_word, replace_word
from vfwire.datapath.state import VECTORS, CardState

_log = logging.getLogger(__name__)
_EVENTFD = "anon_inode:[eventfd]"


class StuckLoop:
    """Looks at the loop from time to time. What `free` took away is to be closed while the loop is parked.

    idle: the loop moved nothing between the last two looks.
    """

    def __init__(self, state: CardState) -> None:
        self._state = state
        self.idle = False
        self._seen = self._busy = -1
        # Found once: finding a field of a record array takes longer than all the rest of a look.
        self._words = [
            field_address(state.control, 0, name)
            for name in ("rounds", "busy_rounds", "request", "acknowledged", "started")
        ]

    def standing_still(self) -> bool:
        """True when the loop has not gone round since the last call, and nobody asked it to stand still."""
        rounds, busy, request, acknowledged, started = (load_word(address) for address in self._words)
        asked = request & 1 and request == acknowledged
        still = started and rounds == self._seen and not asked
        self.idle = busy == self._busy
        self._seen, self._busy = rounds, busy
        return bool(still)

    def free(self) -> list[tuple[int, int]]:
        """Empty every eventfd that would hold its writer, and take it out of the state: (function, eventfd) of each.

        The control side may replace and close an eventfd meanwhile, and its number may be another's at once. Whoever
        takes the number out of the state in one step owns it: only then is what was seen of it sure.
        """
        taken = []
        for row, fd in enumerate(self._state.vectors.eventfd.tolist()):
            if fd < 0 or not holds_its_writer(fd):
                continue
            place = field_address(self._state.vectors, row, "eventfd")
            if replace_word(place, fd, -1) != fd:
                continue
            if not holds_its_writer(fd):
                if replace_word(place, -1, fd) != -1:
                    os.close(fd)
                continue
            self._tell(row)
            empty_eventfd(fd)
            taken.append((row // VECTORS, fd))
        return taken

    def _tell(self, row: int) -> None:
        function = self._state.functions[row // VECTORS]
        _log.warning(
            "card %d VF %d: its guest blocked interrupt %d, which is taken away from it",
            function.card,
            function.pool,
            row % VECTORS,
        )


def holds_its_writer(fd: int) -> bool:
    """An eventfd whose counter is full: writing to it waits until somebody reads."""
    try:
        if str(Path(f"/proc/self/fd/{fd}").readlink()) != _EVENTFD:
            return False
    except OSError:
        return False
    poll = select.poll()
    poll.register(fd, select.POLLOUT)
    return not any(events & (select.POLLOUT | select.POLLNVAL) for _, events in poll.poll(0))


def empty_eventfd(fd: int) -> None:
    """Take its counter to 0 without waiting."""
    try:
        fcntl.fcntl(fd, fcntl.F_SETFL, fcntl.fcntl(fd, fcntl.F_GETFL) | os.O_NONBLOCK)
        os.eventfd_read(fd)
    except OSError:
        return
