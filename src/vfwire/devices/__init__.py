"""Floor 2: the card, its switch and link, and one file for each model of virtual function."""
