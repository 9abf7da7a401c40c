"""Floor 1: every compiled loop. One file for a ring format, one for what all share."""
