"""Floor 0: shared memory, DMA maps, fences, and how the compiled loops are compiled."""
