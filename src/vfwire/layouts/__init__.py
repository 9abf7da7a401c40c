"""Floor 0: facts, written once: register maps, descriptors, messages."""
