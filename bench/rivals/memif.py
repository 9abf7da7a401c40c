"""DPDK: memif, shared memory between two processes; with zero-copy the sender's own buffers are what is shared."""

from pathlib import Path

from bench.rivals.testpmd import Recipe, command

RING_LOG2 = 10


def _device(role: str, path: Path) -> str:
    return f"net_memif0,role={role},id=0,socket={path},socket-abstract=no,rsize={RING_LOG2}"


def _recipe(name: str, client_options: str, *eal: str) -> Recipe:
    return Recipe(
        name=name,
        server=lambda path: _device("server", path),
        client=lambda path: _device("client", path) + client_options,
        eal=eal,
    )


RECIPES = {
    "copy": _recipe("memif", ""),
    "zero-copy": _recipe("memif zero-copy", ",zero-copy=yes", "--iova-mode=va", "--single-file-segments"),
}

main = command(RECIPES)

if __name__ == "__main__":
    main()
