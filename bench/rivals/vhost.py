"""DPDK: a virtio-user port in one process, vhost-user in the other, as between a container and a software switch."""

from bench.rivals.testpmd import Recipe, command

QUEUE = 1024

RECIPES = {
    "vhost": Recipe(
        name="virtio-user to vhost-user",
        server=lambda path: f"net_vhost0,iface={path},queues=1",
        client=lambda path: f"net_virtio_user0,path={path},queues=1,queue_size={QUEUE}",
    )
}

main = command(RECIPES)

if __name__ == "__main__":
    main()
