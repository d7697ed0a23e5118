"""The tour, and what it needs around it; nothing but the command line and tests imports it."""
