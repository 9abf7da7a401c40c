"""Floor 1: how two processes are joined: vfio-user, and Xen's grants, event channels and xenbus."""
