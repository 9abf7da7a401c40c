"""Floor 4: traffic, latency, counters and reports."""
