"""Floor 3: what joins two systems: the enhanced path and the default path."""
