"""Floor 4: operators' questions about enhanced networking, each answered by one verdict, its reason, the next step."""
