"""Progress on stderr: a bar where there is a terminal, one line a step where there is none. Starts no thread."""

import sys
from collections.abc import Callable
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn


class Steps:
    """Tell what goes on: `step` names the next step, and what it returns is told how far that is. A context
    manager.
    """

    def __init__(self) -> None:
        self._bar: Progress | None = None
        if sys.stderr.isatty():
            self._bar = Progress(
                TextColumn("{task.description}"),
                BarColumn(),
                TimeElapsedColumn(),
                console=Console(stderr=True),
                auto_refresh=False,
                transient=True,
            )
        self._task = None if self._bar is None else self._bar.add_task("", total=None)

    def step(self, title: str) -> Callable[[str, float], None]:
        """The next step. Call what is returned with a note (may be empty) and a share from 0 to 1."""
        if self._bar is None or self._task is None:
            print(f"vfwire: {title}", file=sys.stderr, flush=True)
            return _nothing
        bar, task = self._bar, self._task
        bar.reset(task, description=title, total=None)
        bar.refresh()

        def tell(note: str, share: float) -> None:
            bar.update(task, description=f"{title} {note}".rstrip(), total=1.0, completed=share)
            bar.refresh()

        return tell

    def note(self, title: str) -> None:
        """A step that cannot tell how far it is."""
        self.step(title)

    def __enter__(self) -> Self:
        if self._bar is not None:
            self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._bar is not None:
            self._bar.stop()


def _nothing(_note: str, _share: float) -> None:
    return
