"""vfwire: a software SR-IOV network card, drivers for its virtual functions, and the default path beside it."""

__version__ = "0.1.0"
