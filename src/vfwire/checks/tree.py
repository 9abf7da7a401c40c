"""Files of the kernel's (sysfs, procfs, /lib/modules), of this host or of a copy of them below another directory."""

from pathlib import Path

_LONGEST = 1 << 22  # modules.dep is the longest file that is read: some 500 KiB


class Tree:
    """Relative paths below `root`, "sys/class/net" for one.

    What is not there, may not be read, or leads out of a copy by a link, is None or empty: a copy may come from
    anywhere, and what a file says is untrusted text.
    """

    def __init__(self, root: Path = Path("/")) -> None:
        self.root = root.resolve()

    @property
    def live(self) -> bool:
        """True for this host itself, whose kernel can be asked as well."""
        return self.root == Path("/")

    def real(self, path: str) -> Path | None:
        """Where a path is after all links, relative to the root; None if that is nowhere in the tree."""
        try:
            found = (self.root / path).resolve(strict=True)
        except (OSError, RuntimeError, ValueError):
            return None
        return found.relative_to(self.root) if found.is_relative_to(self.root) else None

    def target(self, path: str) -> str | None:
        """The last part of what a link leads to: the name of a driver, a group, a device."""
        found = self.real(path)
        return None if found is None else found.name

    def exists(self, path: str) -> bool:
        return self.real(path) is not None

    def bytes(self, path: str, most: int = _LONGEST) -> bytes:
        """The first `most` bytes of a file."""
        found = self.real(path)
        if found is None:
            return b""
        try:
            with (self.root / found).open("rb") as file:
                return file.read(most)
        except OSError:  # a directory, no permission, or an attribute that the driver does not serve
            return b""

    def text(self, path: str) -> str | None:
        """A file's text without the spaces around it; None if it is empty or cannot be read."""
        return self.bytes(path).decode(errors="replace").strip() or None

    def number(self, path: str) -> int | None:
        """A file that holds one number, as 12 or 0x8086."""
        try:
            return int(self.text(path) or "", 0)
        except ValueError:
            return None

    def names(self, path: str) -> list[str]:
        """What is in a directory, in order."""
        found = self.real(path)
        try:
            return [] if found is None else sorted(entry.name for entry in (self.root / found).iterdir())
        except OSError:
            return []
