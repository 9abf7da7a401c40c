"""DPDK: a virtio-user port in one process, vhost-user in the other, as between a container and a software switch.

Two kinds of ring: split is testpmd's default, packed the newer one, which is the faster on some machines.
"""

from bench.rivals.testpmd import Recipe, command

QUEUE = 1024


def _recipe(name: str, options: str) -> Recipe:
    return Recipe(
        name=name,
        server=lambda path: f"net_vhost0,iface={path},queues=1",
        client=lambda path: f"net_virtio_user0,path={path},queues=1,queue_size={QUEUE}{options}",
    )


RECIPES = {
    "split": _recipe("virtio-user to vhost-user", ""),
    "packed": _recipe("virtio-user to vhost-user, packed ring", ",packed_vq=1,mrg_rxbuf=0"),
}

main = command(RECIPES)

if __name__ == "__main__":
    main()
