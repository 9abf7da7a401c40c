"""The kernel's VFIO, a function's second carrier: hardware, or a guest's own virtual function.

    binding.py    which driver has a function (sysfs), and handing it to vfio-pci and back
    container.py  the IOMMU: a container, a group in it, DMA maps
    function.py   the Function that drivers are given

Needs an IOMMU that the kernel uses (`intel_iommu=on` on its command line for an Intel one; AMD's is on), the modules
vfio_iommu_type1 and vfio-pci, and the right to use /dev/vfio.
"""
