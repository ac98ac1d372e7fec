"""What an operator talks to: the admin API."""
