"""What the project costs and gains, measured beside what a user would pick instead. Start with bench/README.md."""
