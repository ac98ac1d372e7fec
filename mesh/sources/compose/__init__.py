"""Services of compose files as instances."""
