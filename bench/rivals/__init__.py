"""What a user would pick instead. Each runs alone: `python -m bench.rivals.veth --seconds 3 --json`."""
