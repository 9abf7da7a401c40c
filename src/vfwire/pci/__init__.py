"""Floor 1: what a PCI function is, seen from its driver (`function`) and from its device (`endpoint`)."""
