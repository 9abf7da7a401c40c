"""vfio-user, both ends: a PCI function served on a UNIX socket, and used through one.

    server.py      the thread and its poll loop; one client at a time
    listener.py    the socket file
    session.py     one client's requests and their answers; knows no socket
    irqs.py        DEVICE_SET_IRQS
    version.py     negotiation, both ways
    wire.py        one message with its descriptors
    connection.py  requests of a driver, each within a bounded time
    client.py      the Function that drivers are given

Facts that cost time to find (QEMU hw/vfio-user, libvfio-user's tests, and tried): QEMU proposes version 0.0
and refuses a higher answer; Cloud Hypervisor proposes 0.1. QEMU asks for a region with argsz 32 first and
wants capabilities to start at 32 even when they did not fit; its WRITE_MULTI always has room for 200
writes; its SET_IRQS hands one vector at a time, first without an eventfd, then with one. A region has
one file offset, so mapped areas lie in the file as they lie in the region.
"""
