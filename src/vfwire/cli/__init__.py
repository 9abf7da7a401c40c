"""Floor 5: the command line, a file for each command."""
