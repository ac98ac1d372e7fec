"""Asking endpoints whether they work: when (schedule), how (http, tcp), and what the answers mean (health)."""
