"""Floor 2: verbs of a driver, and one file for each driver."""
