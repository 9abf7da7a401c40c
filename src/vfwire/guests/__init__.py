"""Floor 3: QEMU guests on a card: the emulator, guest images made from Debian packages, and guests that run."""
